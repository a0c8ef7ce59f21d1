"""Classes are chosen by name as people type them."""

from __future__ import annotations

import pytest

from model.labels import ClassInfo, ClassTable
from pipeline.predictions import Selection

TABLE = ClassTable("own", tuple(ClassInfo(id, name, True, (id, 0, 0)) for id, name in enumerate(
    ["dog", "Dog", "caf\u00e9", "cat"])))


@pytest.mark.parametrize(("names", "classes"), [
    (["cat"], {3}), (["CAT"], {3}), (["dog"], {0, 1}), (["cafe\u0301", "cat"], {2, 3}), ([], None)])
def test_names_are_compared_as_people_read_them(names, classes):
    chosen = Selection.named(None, names, TABLE).classes
    assert chosen == (None if classes is None else frozenset(classes))


def test_a_name_that_no_class_has_is_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"the model has no class 'catt'; did you mean \['cat'"):
        Selection.named(None, ["catt"], TABLE)
