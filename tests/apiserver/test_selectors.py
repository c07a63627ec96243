# SPDX-License-Identifier: Apache-2.0
"""Label selectors: the grammar in a table; and the product's own reading of it, held against this one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.contract.errors import EppError
from epp.kube.selector import parse_selector
from tests.apiserver.selecting import label_test
from tests.apiserver.status import Refused

LABELS = {"app": "vllm", "n": "5", "empty": "", "llm-d.ai/role": "both"}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("app", True),
        ("!app", False),
        ("!other", True),
        ("app=vllm", True),
        ("app==vllm", True),
        (" app = vllm , n", True),
        ("app!=vllm", False),
        ("other!=vllm", True),
        ("app in (a, vllm)", True),
        ("app notin (a, vllm)", False),
        ("other in (a)", False),
        ("other notin (a)", True),
        ("empty=", True),
        ("empty in ()", True),
        ("empty in (a,)", True),
        ("n>4", True),
        ("n<5", False),
        ("app>4", False),
        ("other<4", False),
        ("llm-d.ai/role in (both,decode),app", True),
    ],
)
def test_the_grammar(text: str, fits: bool) -> None:
    assert label_test(text)(LABELS) is fits


@pytest.mark.parametrize(
    "text", ["=a", "a in b", "a in (b", "a,", ",a", "a b", "a=b=c", "-a", "a=-b", "a>x", "/a", "a/b/c", "!"]
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(Refused) as caught:
        label_test(text)
    assert caught.value.code == 400


KEYS = st.sampled_from([*LABELS, "other"])
VALUES = st.sampled_from([*LABELS.values(), "a", "4", "-1"])
TERMS = st.one_of(
    KEYS,
    KEYS.map("!{}".format),
    st.builds("{}{}{}".format, KEYS, st.sampled_from(["=", "==", "!=", ">", "<"]), VALUES),
    st.builds(
        lambda key, sign, values: f"{key} {sign} ({','.join(values)})",
        KEYS,
        st.sampled_from(["in", "notin"]),
        st.lists(VALUES, min_size=1, max_size=3),
    ),
)


@given(st.lists(TERMS, max_size=4).map(",".join), st.dictionaries(KEYS, VALUES))
def test_the_products_reading_is_the_same(text: str, labels: dict[str, str]) -> None:
    try:
        ours = parse_selector(text).matches(labels)
    except EppError:
        with pytest.raises(Refused):
            label_test(text)
        return
    assert label_test(text)(labels) is ours
