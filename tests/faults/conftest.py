"""How much of the matrix runs, and the counts that it prints in the end."""

import pytest

LINE = "crash-matrix"
"""The name under which a test hands its flow's line to the summary."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--whole",
        action="store_true",
        help="run the whole crash matrix: every point of every flow, in every way",
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = {
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == LINE
    }
    if lines:
        terminalreporter.section("crash matrix")
        for line in sorted(map(str, lines)):
            terminalreporter.write_line(line)
