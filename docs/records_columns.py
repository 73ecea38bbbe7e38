"""The columns of records.csv, as a Markdown table: python docs/records_columns.py"""

from bench.reports.formats import Cell, Table, write
from bench.results.records import COLUMNS, CONDITIONS, SCHEMA

if __name__ == "__main__":
    rows = [[Cell(name), Cell("yes" if name in CONDITIONS else ""), Cell(meaning)] for name, meaning in COLUMNS.items()]
    header = ["column", "condition", "meaning"]
    print(write([Table(f"{len(COLUMNS)} columns", f"Layout (schema) {SCHEMA}.", header, rows, left=3)], "markdown"))
