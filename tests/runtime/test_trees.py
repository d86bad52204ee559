"""Dataclasses that JAX takes apart: fields, equality, copies, compiled functions."""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from doors import Module, field, filter_jit, tree_at


class Base(Module):
    a: object
    kind: str = field(static=True, default="x")

    @abc.abstractmethod
    def total(self): ...


class Leaf(Base):
    b: object = 2.0

    def total(self):
        return jnp.sum(self.a) + self.b


class Own(Module):
    size: float

    def __init__(self, size):
        self.size = 2 * size


class Heir(Own):
    """No fields of its own: the ``__init__`` is inherited."""


def test_fields_stand_in_the_order_of_a_dataclass_and_are_set_once():
    leaf = Leaf(np.ones(2), "y", 3.0)
    assert (leaf.kind, leaf.b, Leaf(0.0).kind) == ("y", 3.0, "x")
    assert Heir(2.0).size == 4.0
    for change in (
        lambda: setattr(leaf, "b", 1.0),
        lambda: setattr(leaf, "other", 1.0),
        lambda: delattr(leaf, "b"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            change()
    with pytest.raises(TypeError, match="abstract"):
        Base(1.0)
    with pytest.raises(TypeError):
        Leaf()


def test_static_fields_are_structure_and_the_others_leaves():
    leaf = Leaf(np.ones(2), "y", 3.0)
    leaves, tree = jax.tree.flatten(leaf)
    assert [np.shape(x) for x in leaves] == [(2,), ()]
    assert tree != jax.tree.structure(Leaf(np.ones(2), "z", 3.0))
    assert jax.tree.unflatten(tree, leaves) == leaf
    assert float(jax.jit(Leaf.total)(leaf)) == 5.0
    paths = jax.tree_util.tree_flatten_with_path(leaf)[0]
    assert [jax.tree_util.keystr(path) for path, _ in paths] == [".a", ".b"]
    assert dataclasses.replace(leaf, b=1.0).b == 1.0
    assert repr(Leaf(np.ones(9), "y")) == "Leaf(a=float64[9], kind='y', b=2.0)"


def test_equal_are_those_whose_fields_are():
    leaf = Leaf(np.ones(2), "y", 3.0)
    assert leaf == Leaf(np.ones(2), "y", 3.0)
    for other in (
        Leaf(np.zeros(2), "y", 3.0),
        Leaf(np.ones(3), "y", 3.0),
        Leaf(np.ones(2, "float32"), "y", 3.0),
        Leaf(np.ones(2), "z", 3.0),
        Leaf(1.0, "y", 3.0),
        3,
    ):
        assert leaf != other
    assert hash(Leaf(1.0)) == hash(Leaf(1.0))
    assert Leaf((np.ones(2), 1)) == Leaf((np.ones(2), 1))
    assert Leaf((np.ones(2), 1)) != Leaf([np.ones(2), 1])


def test_a_copy_differs_where_it_is_told_to():
    leaf = Leaf((1.0, Own(2.0)), "y", 3.0)
    other = tree_at(lambda x: (x.b, x.a[-1].size), leaf, (5.0, 6.0))
    assert (other.b, other.a[1].size, other.a[0]) == (5.0, 6.0, 1.0)
    assert leaf.a[1].size == 4.0
    assert tree_at(lambda x: x.a, leaf, None).a is None


def test_a_compiled_function_traces_arrays_and_holds_the_rest():
    traced = []

    @filter_jit
    def total(leaf, extra):
        traced.append(leaf.kind)
        return leaf.total() + (0 if extra is None else extra)

    for n in (1.0, 2.0):
        assert float(total(Leaf(np.full(2, n)), None)) == 2 * n + 2
    assert traced == ["x"]
    assert float(total(Leaf(np.ones(2), "y"), 7)) == 11
    assert traced == ["x", "y"]


def test_a_path_cannot_be_walked_without_end():
    class Row(Module):
        parts: list

    with pytest.raises(TypeError, match="indices"):
        tree_at(lambda r: [x.real for x in r.parts], Row([1.0, 2.0]), [3.0, 4.0])
