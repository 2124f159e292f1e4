"""The choice of an executor: by timing, remembered, the same on all ranks, and without a trace in what is computed."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nni_darts import parallel
from nni_darts.search_spaces import DartsRnnSpace, DartsSpace
from nni_darts.strategies import DifferentiableStrategy, create_strategy
from nni_darts.strategies.fast import FastCell, FastRecurrentCell, executors, kernels, remembered
from nni_darts.strategies.fast.executors import NAMES, Place, unusable
from nni_darts.strategies.relaxations import Gumbel, PartialChannels, Relaxation, SkipDropout, Softmax
from tests.helpers.compiler import needs_kernels
from tests.helpers.ranks import on_ranks

Made = tuple[DifferentiableStrategy, nn.Module]


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty memory; kernels are loaded from where they are."""
    kernels.kernels(torch.zeros(1))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'nni-darts' / 'executors.json'


def supernet(execution: str = 'fast', relaxation: Relaxation | None = None, **settings: Any) -> Made:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(relaxation or Softmax(), execution=execution, **settings)
    return strategy, strategy.mutate_model(DartsSpace(8, 3, 3, 2, 2))


def recurrent(execution: str = 'fast') -> Made:
    torch.manual_seed(0)
    strategy = DifferentiableStrategy(execution=execution)
    return strategy, strategy.mutate_model(DartsRnnSpace(9, 12, 12, 3))


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def words() -> Tensor:
    return torch.randint(9, (5, 4), generator=torch.Generator().manual_seed(1))


SLOW = 0.3
"""Seconds by which an executor is slowed down: more than a tiny cell takes, even on a busy machine."""


def slow_down(kind: type, names: Collection[str], setattr_: Callable[[Any, str, Any], None] = setattr) -> None:
    """Makes executors of a kind of cell take much longer."""
    execute = kind.execute

    def slower(self: Any, name: str, *inputs: Any) -> Any:
        if name in names:
            time.sleep(SLOW)
        return execute(self, name, *inputs)

    setattr_(kind, 'execute', slower)


def usable() -> list[str]:
    return [name for name in NAMES if unusable(name, Place('cpu')) is None]


@pytest.mark.parametrize('slow', NAMES)
@pytest.mark.parametrize(('kind', 'made', 'inputs'), [(FastCell, supernet, images), (FastRecurrentCell, recurrent, words)])
def test_a_slow_executor_is_not_chosen(slow: str, kind: type, made: Any, inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(kind, {slow}, monkeypatch.setattr)
    strategy, model = made()
    assert strategy.executor_choice.record is None
    start = time.perf_counter()
    model(inputs())
    assert time.perf_counter() - start < 10  # well under a second on a machine that does nothing else
    record = strategy.executor_choice.record
    assert record['how'] == 'chosen' and record['name'] != slow
    assert list(record['milliseconds']) == [name for name in usable() if name in kind.executors]
    assert slow not in record['milliseconds'] or record['milliseconds'][slow] >= 1000 * SLOW


@pytest.mark.parametrize('relaxation', [Softmax, lambda: PartialChannels(2)])
def test_plain_is_chosen_where_it_is_the_fastest(relaxation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(FastCell, set(NAMES) - {'plain'}, monkeypatch.setattr)
    strategy, model = supernet(relaxation=relaxation())
    model(images())
    assert strategy.executor_choice.record['name'] == 'plain'


def test_plain_is_not_chosen_where_less_memory_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(FastCell, set(NAMES) - {'plain'}, monkeypatch.setattr)
    strategy, model = supernet(checkpoint=True)
    model(images())
    assert strategy.executor_choice.record['name'] != 'plain'


def test_an_executor_must_be_clearly_faster_than_one_that_needs_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, seconds, expected in ((6, 0.99, 'piecewise'), (5, 0.9, 'plain')):
        monkeypatch.setattr(executors, 'timed', lambda *_, seconds=seconds: {'piecewise': 1.0, 'joined': 2.0, 'plain': seconds})
        monkeypatch.setattr(FastCell, 'executors', {name: FastCell.executors[name] for name in ('piecewise', 'joined', 'plain')})
        strategy, model = supernet()
        model(images(count))
        assert strategy.executor_choice.record['name'] == expected


def test_a_choice_is_remembered_for_a_size(memory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level('INFO', 'nni_darts')
    slow_down(FastCell, set(NAMES) - {'joined'}, monkeypatch.setattr)
    strategy, model = supernet()
    model(images())
    assert strategy.executor_choice.record['name'] == 'joined' and memory.exists()
    (line,) = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r'cells are computed by the executor joined \(chosen: (\w+ [\d.]+ ms(, )?){3,4}\)', line)
    sizes: list[int] = []

    def timed(cell: Any, candidates: Any, inputs: Any) -> dict[str, float]:
        sizes.append(len(inputs[0]))
        return {**dict.fromkeys(candidates, 2.0), 'plain': 1.0}

    monkeypatch.setattr(executors, 'timed', timed)
    again, model = supernet()
    model(images())
    assert again.executor_choice.record == {**strategy.executor_choice.record, 'how': 'remembered'} and not sizes
    other, model = supernet()
    model(images(5))
    assert other.executor_choice.record['name'] == 'plain' and sizes == [5]


def test_the_first_to_choose_decides_for_processes_that_choose_at_once(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes its choice while this one is timing."""
    strategy, model = supernet()

    def timed(cell: Any, candidates: Any, inputs: Any) -> dict[str, float]:
        key = executors.choice_key(cell, candidates, inputs, Place('cpu'))
        memory.parent.mkdir(parents=True)
        memory.write_text(json.dumps({key: {'name': 'joined', 'milliseconds': {'joined': 1.0}}}))
        return {**dict.fromkeys(candidates, 2.0), 'plain': 1.0}

    monkeypatch.setattr(executors, 'timed', timed)
    model(images())
    assert strategy.executor_choice.record == {'name': 'joined', 'how': 'remembered', 'milliseconds': {'joined': 1.0}}


@pytest.mark.parametrize('content', ['', '{', '[1]', 'null', '\x00', 'entries'])
def test_a_damaged_memory_is_none(content: str, memory: Path) -> None:
    first, model = supernet()
    model(images())
    keys = list(json.loads(memory.read_text()))
    for entry in (3, {}, {'name': 'quick'}, {'name': ['joined']}) if content == 'entries' else (None,):
        remembered._IN_PROCESS.clear()
        memory.write_text(content if entry is None else json.dumps(dict.fromkeys(keys, entry)))
        strategy, model = supernet()
        model(images())
        assert strategy.executor_choice.record['how'] == 'chosen'
        assert list(json.loads(memory.read_text())) == keys


def test_a_memory_that_cannot_be_written_is_that_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    for how in ('chosen', 'remembered'):
        strategy, model = supernet()
        model(images())
        assert strategy.executor_choice.record['how'] == how


def state(made: Made) -> list[Any]:
    """All that a forward pass might change but for running statistics."""
    strategy, model = made
    parameters = [*model.parameters(), *strategy.arch_parameters()]
    return [
        [parameter.grad is None for parameter in parameters],
        [parameter.requires_grad for parameter in parameters],
        [module.training for module in model.modules()],
        torch.get_rng_state().tolist(),
    ]


PASSES = {
    'training': {},
    'evaluation': {'train': False},
    'weights only': {'alpha': False},
    'alpha only': {'weights': False},
    'no gradients': {'mode': torch.no_grad, 'train': False},
    'inference': {'mode': torch.inference_mode, 'train': False},
    'one image': {'train': False, 'count': 1},
    'not a number': {'bad': True},
}


@pytest.mark.parametrize('relaxation', [Softmax, lambda: SkipDropout(0.5), lambda: PartialChannels(2)], ids=['softmax', 'skips', 'partial'])
@pytest.mark.parametrize('case', PASSES)
def test_timing_changes_nothing(case: str, relaxation: Any) -> None:
    """Bit for bit, against a supernet in which the same executor is pinned; the second pass reads what the first has written."""
    settings = {'mode': torch.enable_grad, 'train': True, 'alpha': True, 'weights': True, 'count': 6, 'bad': False, **PASSES[case]}
    strategy, model = made = supernet(relaxation=relaxation())
    _, second = copied = copy.deepcopy(made)
    copied[0].architecture = second.cells[0].nodes[0].edges[0].architecture
    results = []
    x = images(settings['count'])
    if settings['bad']:
        x[0, 0, 0, 0] = torch.nan
    for pinned, (searching, network) in ((False, made), (True, copied)):
        if pinned:
            for cell in network.cells:
                cell.choice = executors.ExecutorChoice(strategy.executor_choice.record['name'])
        network.train(settings['train'])
        for parameter in network.parameters():
            parameter.requires_grad_(settings['weights'])
        for alpha in searching.arch_parameters():
            alpha.requires_grad_(settings['alpha'])
        torch.manual_seed(5)
        with settings['mode']():
            outputs = [network(x), network(x)]
        gradients = []
        if settings['mode'] is torch.enable_grad:
            wanted = [p for p in (*network.parameters(), *searching.arch_parameters()) if p.requires_grad]
            gradients = [g for g in torch.autograd.grad(outputs[1].sum(), wanted, allow_unused=True) if g is not None]
        results.append(([*outputs, *gradients, *network.buffers()], state((searching, network))))
    assert strategy.executor_choice.record['how'] == 'chosen'
    (numbers, rest), (expected, other) = results
    assert rest == other
    assert len(numbers) == len(expected)
    for one, two in zip(numbers, expected):
        torch.testing.assert_close(one, two, rtol=0, atol=0, equal_nan=True)


def test_timing_under_autocast() -> None:
    """Only executors that compute in 16 bits are timed, and casts of weights made meanwhile are not kept."""
    strategy, model = supernet()
    with torch.autocast('cpu', torch.bfloat16):
        gradients = torch.autograd.grad(model(images()).sum(), [*model.parameters()], allow_unused=True)
    assert set(strategy.executor_choice.record['milliseconds']) == {'joined', 'plain'}
    assert sum(gradient is not None for gradient in gradients) > 100


def test_copies_are_computed_alike_and_a_supernet_stays_so_elsewhere() -> None:
    strategy, model = supernet('piecewise')
    assert copy.deepcopy(model).cells[0].choice is strategy.executor_choice
    strategy, model = supernet()
    strategy.executor_choice.keep({'name': 'piecewise', 'how': 'chosen'})
    model(images())
    with torch.autocast('cpu', torch.bfloat16):
        assert model.cells[0].choice(model.cells[0], images()) == 'joined'
    assert strategy.executor_choice.record['name'] == 'piecewise'


def test_a_kept_executor_that_cannot_be_used_here_is_replaced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv('NNI_DARTS_KERNELS', 'off')
    strategy, model = supernet()
    strategy.executor_choice.keep({'name': 'compiled', 'how': 'chosen'})
    model(images())
    assert strategy.executor_choice.record['name'] in ('piecewise', 'joined', 'plain')
    assert 'The executor of this run, compiled, cannot be used here: another one is chosen.' in caplog.text


def test_the_record_of_compiled_cells_identifies_the_kernels(caplog: pytest.LogCaptureFixture) -> None:
    needs_kernels()
    strategy, model = supernet('compiled')
    noted: list[Any] = []
    strategy.executor_choice.on_settled = noted.append
    model(images())
    digest = strategy.executor_choice.record['kernels']
    assert noted == [{'name': 'compiled', 'how': 'pinned', 'kernels': digest}]
    assert digest == kernels.kernels(torch.zeros(1)).digest
    for earlier, warned in ((digest, False), ('0' * 20, True)):
        resumed, model = supernet()
        resumed.executor_choice.keep({'name': 'compiled', 'how': 'chosen', 'kernels': earlier})
        model(images())
        assert resumed.executor_choice.record['kernels'] == digest
        assert ('The kernels of this run were built anew' in caplog.text) is warned


@pytest.mark.parametrize('how', [None, {'name': 'quick', 'how': 'chosen'}, {'name': 'joined'}, {}, 'joined'])
def test_a_checkpoint_without_a_known_executor_leaves_the_choice_open(how: Any) -> None:
    strategy, _ = supernet()
    strategy.executor_choice.keep(how)
    assert strategy.executor_choice.record is None


def test_a_pinned_executor_is_stronger_than_a_kept_one() -> None:
    strategy, _ = supernet('joined')
    strategy.executor_choice.keep({'name': 'piecewise', 'how': 'chosen'})
    assert strategy.executor_choice.record == {'name': 'joined', 'how': 'pinned'}


def test_stages_share_one_executor() -> None:
    strategy = create_strategy('p-darts', execution='joined')
    assert {id(part.executor_choice) for part in strategy.parts} == {id(strategy.executor_choice)}


@pytest.mark.parametrize(
    ('relaxation', 'execution', 'message'),
    [
        (Gumbel, 'joined', 'execution: joined cannot compute what this space becomes with Gumbel. Choose fast or plain.'),
        (
            lambda: PartialChannels(2),
            'piecewise',
            'execution: piecewise cannot compute what this space becomes with PartialChannels. Choose fast or compiled or plain.',
        ),
    ],
)
def test_an_executor_that_cannot_compute_the_cells_is_refused(relaxation: Any, execution: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        supernet(execution, relaxation())


def test_a_search_that_is_resumed_after_a_decision_keeps_its_executor(caplog: pytest.LogCaptureFixture) -> None:
    """PC-DARTS is computed plainly from the first decision on."""
    needs_kernels()
    strategy, model = supernet(relaxation=PartialChannels(2))
    strategy.executor_choice.keep({'name': 'compiled', 'how': 'chosen'})
    label, _ = next(iter(strategy.architecture.operations().items()))
    strategy.architecture.state.fixed[label] = 1
    model(images())
    assert strategy.executor_choice.record['name'] == 'compiled' and not caplog.records


def test_recurrent_cells_have_no_piecewise_executor(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match='execution: piecewise cannot compute what this space becomes with Softmax. Choose fast or '):
        recurrent('piecewise')
    strategy, model = recurrent()
    strategy.executor_choice.keep({'name': 'piecewise', 'how': 'chosen'})  # by an earlier version
    model(words())
    assert strategy.executor_choice.record['name'] != 'piecewise'
    assert 'The executor of this run, piecewise, cannot be used here: another one is chosen.' in caplog.text


@pytest.mark.parametrize(
    ('execution', 'device', 'precision', 'message'),
    [
        ('compiled', 'cuda', '32-true', 'execution: compiled computes on the CPU, not on cuda. Choose fast or joined or plain.'),
        ('piecewise', 'mps', '32-true', 'execution: piecewise computes on the CPU, not on mps. Choose fast or joined or plain.'),
        ('piecewise', 'cpu', 'bf16-mixed', 'execution: piecewise does not compute in 16 bits .* Choose fast or joined or plain.'),
        ('compiled', 'cpu', '32-true', r'execution: compiled has no kernels here: .* Choose fast or piecewise or joined or plain\.'),
    ],
)
def test_an_executor_that_cannot_be_used_here_is_refused(
    execution: str, device: str, precision: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('NNI_DARTS_KERNELS', 'off')
    with pytest.raises(ValueError, match=message):
        supernet(execution)[0].check_executor(device, precision)


def choices_of_ranks(cache: str) -> list[str]:
    """What this rank chooses, if each by itself would choose something else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('XDG_CACHE_HOME', f'{cache}/{parallel.rank()}')
        patch.setenv('NNI_DARTS_KERNELS', 'off')
        slow_down(FastCell, set(NAMES) - {('joined', 'plain')[parallel.rank()]}, patch.setattr)
        strategy, model = supernet()
        output = model(images())
        return [strategy.executor_choice.record['name'], parallel.digest(output)]


def test_ranks_agree(tmp_path: Path) -> None:
    one, two = on_ranks(2, tmp_path / 'ranks', choices_of_ranks, str(tmp_path))
    assert one == two and one[0] == 'joined'


def test_kernels_that_the_processor_cannot_run_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('NNI_DARTS_KERNELS_ARCH', 'x86-64-v3')
    monkeypatch.setattr(kernels, '_processor', lambda: 'flags : fpu sse2')
    with pytest.raises(ValueError, match='NNI_DARTS_KERNELS_ARCH is x86-64-v3, which this processor cannot run'):
        DifferentiableStrategy().check_executor('cpu', '32-true')
