import pytest

from bitwright.experiments.benchmarks.report_marks import read_marks

MARK = '<span class="badge measured">measured</span>'
FIGURE = '<span class="number">3 ms</span>'


@pytest.mark.parametrize(
    ("page", "figures", "unmarked"),
    [
        (f"<body><p>{FIGURE} {MARK}</p></body>", 1, 0),
        (f"<body><p>{FIGURE}</p><p>{MARK}</p></body>", 1, 1),
        (f"<body><table><tr><td>{FIGURE}</td><td>{FIGURE}</td><td>{MARK}</td></tr></table></body>", 2, 0),
        (f"<body><table><tr><td>{FIGURE}</td></tr><tr><td>{MARK}</td></tr></table></body>", 1, 1),
        (f'<body><div>{FIGURE}<br><img src="a"> <b><i>{MARK}</b></div></body>', 1, 0),
        (f'<body><p>{FIGURE} <span class="badge guessed">guessed</span></p></body>', 1, 1),
        ("<body><p>no figure</p></body>", 0, 0),
    ],
)
def test_a_figure_needs_its_mark_in_the_same_block(page, figures, unmarked):
    marks = read_marks(page)
    assert (marks.figures, marks.unmarked) == (figures, unmarked)
