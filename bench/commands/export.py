"""`bench export`: from results to the files of another tool."""

from pathlib import Path

import click

TOOLS = ("tensorboard", "mlflow", "wandb-offline", "csv")


@click.command("export", short_help="Hand runs on to TensorBoard, MLflow, wandb or plain CSV.")
@click.argument("paths", metavar="RESULTS...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", "tool", required=True, type=click.Choice(TOOLS), help="The tool that is to read them.")
@click.option("-o", "--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder for its files.")
def export_command(paths: tuple[Path, ...], tool: str, folder: Path) -> None:
    """Hand the runs at or below RESULTS on to another tool: what they were run with, their metrics and costs, accuracy after each
    task, and losses where a run has a log. What is there already is not written twice."""
    from bench.reports.export.tools import export

    click.echo(export(paths, tool, folder))
