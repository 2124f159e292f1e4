"""α, the decisions about it, and the part of a supernet that a forward pass computes."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from nni_darts.errors import InputError
from nni_darts.strategies.architecture import Architecture, InputDecision, Mask, OperationDecision
from nni_darts.strategies.reference import Reference


@pytest.fixture
def architecture() -> Architecture:
    """A node with three edges and an operation by itself."""
    made = Architecture()
    for edge in 'abc':
        made.declare(edge, OperationDecision(('none', 'skip', 'conv')))
    made.declare('node', InputDecision(3, 2, ('a', 'b', 'c')))
    made.declare('layer', OperationDecision(('skip', 'conv')))
    return made


def test_a_view_computes_everything_until_something_is_decided(architecture: Architecture) -> None:
    view = architecture.view
    assert view.operation('a') is None and view.inputs('node') == [0, 1, 2] and not view.is_cut('b')
    architecture.state.fixed['a'] = 2
    architecture.state.dropped['node'] = [1]
    assert view.operation('a') == 2 and view.inputs('node') == [0, 2]
    assert view.is_cut('b') and not view.is_cut('a') and not view.is_cut('layer')


def test_a_mask_is_that_of_its_label_and_ends_with_the_block(architecture: Architecture) -> None:
    architecture.state.dropped['node'] = [0]
    before = architecture.view
    with pytest.raises(KeyError), architecture.viewed(mask=Mask('node', 2)):
        assert architecture.view.inputs('node') == [1] and architecture.view.is_cut('c')
        assert architecture.view.mask_of('node') == ('node', 2, False) and architecture.view.mask_of('a') is None
        with architecture.viewed(mask=Mask('a', 1)):
            assert architecture.view.inputs('node') == [1, 2] and architecture.view.mask_of('a').index == 1
        raise KeyError
    assert architecture.view is before


def test_a_path_stands_above_decisions(architecture: Architecture) -> None:
    architecture.state.fixed['a'] = 2
    with architecture.viewed(path={'node': (0, 1), 'a': (1,), 'b': (2,), 'layer': (1,)}):
        view = architecture.view
        assert view.operation('a') == 1 and view.inputs('node') == [0, 1] and view.is_cut('c')
    assert architecture.view.operation('a') == 2


def test_a_copy_views_its_own_decisions(architecture: Architecture) -> None:
    other = copy.deepcopy(architecture)
    other.state.fixed['a'] = 1
    assert other.view.architecture is other
    assert other.view.operation('a') == 1 and architecture.view.operation('a') is None


def test_decisions_are_in_the_checkpoint_in_the_form_of_earlier_versions(architecture: Architecture) -> None:
    architecture.state.fixed['a'] = 2
    architecture.state.memory['rounds'] = 3
    file = io.BytesIO()
    torch.save(architecture.state_dict(), file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    earlier = ['fixed', 'dropped', 'history', 'memory', 'by_magnitude', 'curvature', 'stopped', 'ended']
    assert list(saved['_extra_state']) == [*earlier, 'candidates']
    del saved['_extra_state']['ended'], saved['_extra_state']['candidates']  # earlier versions had none
    other = Architecture()
    for label, decision in architecture.decisions.items():
        other.declare(label, decision)
    other.load_state_dict(saved)
    assert other.state == architecture.state
    assert torch.equal(other.alpha('a'), architecture.alpha('a'))


@pytest.mark.parametrize(
    ('decisions', 'said'),
    [
        ({'a': OperationDecision(('y', 'x'))}, "choice 'a' had x, y, and now has y, x; restore its code, or start again"),
        ({'a': OperationDecision(('x', 'z'))}, "choice 'a' had x, y, and now has x, z"),
        ({'a': OperationDecision(('x', 'y')), 'b': InputDecision(2, 1)}, "choice 'b' had no such choice, and now has 0, 1"),
    ],
)
def test_a_checkpoint_of_other_choices_is_refused(decisions: dict[str, OperationDecision | InputDecision], said: str) -> None:
    before, after = Architecture(), Architecture()
    before.declare('a', OperationDecision(('x', 'y')))
    for label, decision in decisions.items():
        after.declare(label, decision)
    with pytest.raises(InputError, match=said):
        after.load_state_dict(before.state_dict())


@pytest.mark.parametrize('name', ['fixed', 'dropped', 'history', 'memory'])
def test_names_of_the_first_edition_still_work(name: str, architecture: Architecture) -> None:
    value = type(getattr(architecture.state, name))()
    with pytest.warns(DeprecationWarning, match=f'architecture.{name} is architecture.state.{name} now.'):
        setattr(architecture, name, value)
    with pytest.warns(DeprecationWarning, match=f'architecture.state.{name}'):
        assert getattr(architecture, name) is value is getattr(architecture.state, name)


def test_a_module_that_is_referred_to_is_no_part_of_the_other() -> None:
    module = nn.Module()
    module.other = Reference(nn.Linear(2, 3))
    assert not list(module.parameters()) and not list(module.children()) and not module.state_dict()
    assert module.other.value.out_features == 3
