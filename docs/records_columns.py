"""The columns of records.csv, as a Markdown table: python docs/records_columns.py"""

from bench.reports.formats import Table, TableCell, write
from bench.results.records import COLUMNS, CONDITIONS, SCHEMA

if __name__ == "__main__":
    cells = [(name, "yes" if name in CONDITIONS else "", meaning) for name, meaning in COLUMNS.items()]
    rows = [[TableCell(text) for text in row] for row in cells]
    header = ["column", "condition", "meaning"]
    print(write([Table(f"{len(COLUMNS)} columns", f"Layout (schema) {SCHEMA}.", header, rows, left=3)], "markdown"))
