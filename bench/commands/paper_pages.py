"""What `bench list` and `bench show` say of the papers' tables that `bench reproduce` runs."""

from textwrap import indent

from tabulate import tabulate

from bench.results import paper_tables


def listed() -> str:
    """Every table with its summary."""
    rows = [[name, paper_tables.find(name).summary] for name in paper_tables.names()]
    return "tables (bench reproduce):\n" + indent(tabulate(rows, tablefmt="plain"), "  ") + "\n"


def page(name: str) -> str:
    """What a table is, how it is run, what differs, and its numbers."""
    from bench.reports.formats import write
    from bench.reports.paper_rows import reported
    from bench.runs import paper_study

    table = paper_tables.find(name)
    study = paper_study.read(table, {}).whole
    keys = paper_study.keys(study)
    orders = sorted({order for part in study.requests for order in part.order_seeds})
    seeds = sorted({seed for part in study.requests for seed in part.seeds})
    facts = [
        ("what", table.summary),
        ("source", table.source + (f", arXiv {table.arxiv}" if table.arxiv else "")),
        *((what, f"in the paper: {said}") for what, said in table.facts.items()),
    ]
    if study.requests:
        facts += [
            ("runs here", f"{table.backbone}; seeds {', '.join(map(str, seeds))}, order seeds {', '.join(map(str, orders))}"),
            ("command", f"bench reproduce {name}"),
        ]
    else:
        facts.append(("runs here", f"none: {table.cannot or 'see below'}"))
    facts += [("differs", said) for said in table.differs]
    numbers = write([reported(table, paper_tables.cells(table, keys))], "plain")
    return "\n".join([f"table {name}", tabulate(facts, tablefmt="plain"), "", numbers, ""])
