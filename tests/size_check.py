"""Say which files and functions are longer than the house allows: a note above the aim, exit 1 above the limit.

Source files: note above 250 lines, refused above 400 (tests: 500). Functions: refused above 60 lines. Catalogues that
are one table may be told apart here by name, with the reason.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_NOTE, FILE_LIMIT, TEST_FILE_LIMIT, FUNCTION_LIMIT = 250, 400, 500, 60


def too_long_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Give (name, line, length) of every function above the limit; decorators do not count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LIMIT:
                yield node.name, node.lineno, length


def findings(path: Path) -> Iterator[tuple[bool, str]]:
    """Give (refused, sentence) for what is too long in one file."""
    source = path.read_text("utf-8")
    n_lines = source.count("\n")
    limit = TEST_FILE_LIMIT if path.parts[0] == "tests" else FILE_LIMIT
    if n_lines > limit:
        yield True, f"{path}: {n_lines} lines, the limit is {limit}"
    elif n_lines > FILE_NOTE and path.parts[0] != "tests":
        yield False, f"{path}: {n_lines} lines, more than {FILE_NOTE} must explain themselves"
    for name, line, length in too_long_functions(source):
        yield True, f"{path}:{line}: {name} has {length} lines, the limit is {FUNCTION_LIMIT}"


def main(folders: list[str]) -> int:
    """Print what is too long under ``folders``; gives the exit code."""
    refused = False
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            for is_refused, sentence in findings(path):
                refused |= is_refused
                print(("refused: " if is_refused else "note: ") + sentence)
    return int(refused)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
