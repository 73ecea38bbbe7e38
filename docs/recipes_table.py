"""What the search for the shipped recipes found: a row for each recipe of methods/recipes/.

    python docs/recipes_table.py
"""

from bench.learning import recipes
from bench.learning.recipes import Recipe
from bench.reports.formats import Table, TableCell, write

HEADER = ["method", "protocol", "metric", "before", "chosen", "trials", "failed"]


def row(recipe: Recipe) -> list[TableCell]:
    tuned = recipe.tuned
    chosen = f"{tuned['score']:.1f}" if tuned["trial"] else "as before"
    numbers = [f"{tuned['score_at_present']:.1f}", chosen, str(tuned["trials"]), str(tuned["failed"])]
    return [TableCell(text) for text in (recipe.method, recipe.protocol, tuned["metric"], *numbers)]


def render() -> str:
    found = [recipe for recipe in recipes.shipped() if recipe.tuned]
    changed = sum(1 for recipe in found if recipe.tuned["trial"])
    what = f"{len(found)} searches, of which {changed} found something better on validation images"
    return write([Table("Recipes that ship", what, HEADER, [row(recipe) for recipe in found])], "markdown")


if __name__ == "__main__":
    print(render())
