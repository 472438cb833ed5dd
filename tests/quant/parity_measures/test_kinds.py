"""What a result is taken for; the user's own word is always obeyed."""

import numpy as np
import pytest

from bitwright.quant.errors import InputError
from bitwright.quant.parity_measures import Kind, guess, kinds_from_words

F, LONG = np.float32, np.int64


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "op", "kind"),
    [
        ("result['boxes']", (2, 10, 4), F, "", Kind.BOXES),
        ("result['pred_boxes']", (10, 9), F, "", Kind.BOXES),
        ("result['scores']", (2, 10), F, "topk", Kind.SCORES),
        ("result['labels']", (2, 10), LONG, "", Kind.CLASSES),
        ("result['track_ids']", (10,), LONG, "", Kind.TRACKS),
        ("result['keypoints']", (2, 17, 3), F, "", Kind.KEYPOINTS),
        ("result['keypoint_scores']", (2, 17), F, "", Kind.SCORES),
        ("result['detections']", (2, 10, 6), F, "", Kind.DETECTIONS),
        ("result['cls_logits']", (2, 10, 3), F, "", Kind.LOGITS),
        ("result['masks']", (2, 8, 8), F, "sigmoid", Kind.MASK),
        ("result['embedding']", (2, 128), F, "linear", Kind.EMBEDDING),
        ("result['trajectory']", (1, 12, 2), F, "", Kind.SEQUENCE),
        ("result", (4, 1000), F, "linear", Kind.LOGITS),
        ("result", (4, 1000), F, "Gemm", Kind.LOGITS),
        ("result", (4, 1), F, "linear", Kind.VALUES),
        ("result", (4, 19, 64, 64), F, "softmax", Kind.LOGITS),
        ("result", (4, 64, 64), LONG, "argmax", Kind.MASK),
        ("result", (4, 64, 64), bool, "gt", Kind.MASK),
        ("result[1]", (2, 100), LONG, "topk", Kind.PLACES),
        ("result", (2, 3, 8, 8), np.uint8, "QuantizeLinear", Kind.CODES),
        ("result", (2, 3, 8, 8), F, "conv2d", Kind.VALUES),
        ("result['boxes']", (), F, "", Kind.VALUES),
    ],
)
def test_by_name_producer_type_and_shape(name: str, shape: tuple[int, ...], dtype: type, op: str, kind: Kind) -> None:
    assert guess(name, np.zeros(shape, dtype), op) is kind


def test_the_users_own_words() -> None:
    assert kinds_from_words({"result[0]": "boxes"}) == {"result[0]": Kind.BOXES}
    with pytest.raises(
        InputError, match=r"result 'result\[0\]': unknown kind of result 'bokses'.*did you mean 'boxes'"
    ):
        kinds_from_words({"result[0]": "bokses"})
