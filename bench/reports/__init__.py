"""Numbers as text: tables, comparisons, rankings, costs."""
