"""The tables of the manual, for tests that compare them with the code."""

import re
from functools import cache
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """A table's cells, by the page's name and the first words of the table's heading; the last cell may have lines."""
    text = (DOCS / page).read_text()
    rule, body = re.findall(rf"^(=[= ]+)\n{heading} .*\n=[= ]+\n((?:.*\n)*?)=[= ]+\n", text, re.MULTILINE)[0]
    columns = [(each.start(), each.end()) for each in re.finditer("=+", rule)]
    found: list[list[str]] = []
    for line in body.splitlines():
        last = line[columns[-1][0] :].strip()
        if line.startswith(" "):
            found[-1][-1] += f" {last}"
        else:
            found.append([*(line[start:end].strip() for start, end in columns[:-1]), last])
    return found


@cache
def eventFields(page: str) -> dict[str, frozenset[str]]:
    """The fields of every event that the page lists: what is quoted before the explanation."""
    return {
        name.strip("`"): frozenset(re.findall("``(\\w+)``", fields.partition(":")[0].partition(";")[0]))
        for name, fields in rows(page, "event")
    }
