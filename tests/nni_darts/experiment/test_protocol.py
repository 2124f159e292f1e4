from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Mapping

import pytest

from nni_darts.errors import InputError
from nni_darts.experiment.arguments import TunerArguments, unsendable
from nni_darts.experiment.ledger import Ledger, Standing
from nni_darts.experiment.manager import TrialRecord
from nni_darts.experiment.protocol import Job, Protocol, parse_search_space
from nni_darts.recipes import Recipe
from nni_darts.report.summary import format_table, summarize

RECIPE = Recipe.load('digits', {'search.random_samples': 2, 'search.settings': {'evolution': {'cells': 9, 'population': 4, 'parallel': 3}}})
PROTOCOL = Protocol(RECIPE, ('darts-2nd', 'random'), (1, 2), retrain_runs=2)


def result(job: Job) -> dict:
    """What a trial of that job would report; searches find the first cell of that seed's draw."""
    accuracy = random.Random(job.key).random()
    arch = job.arch or RECIPE.random_cells(100 + job.seed)[0].code()
    extra = {'test_accuracy': accuracy} if job.stage == 'retrain' else {}
    return {'default': accuracy, 'seconds': 1.0, 'arch': arch, 'key': job.key, **extra}


def simulate(
    fail: frozenset[str] = frozenset(), seed: int = 0, protocol: Protocol = PROTOCOL, results: Mapping[str, Mapping] | None = None
) -> tuple[list[str], dict[str, Mapping]]:
    """Runs the protocol with jobs ending in random order; returns keys in order and all results.

    Args:
        results: what the manager had on record when the experiment was resumed.
    """
    rng = random.Random(seed)
    order: list[str] = []
    results = dict(results or {})
    while True:
        ready = [job for job in protocol.jobs(results, fail) if job.key not in results and job.key not in fail]
        if not ready:
            return order, results
        job = rng.choice(ready)
        order.append(job.key)
        results[job.key] = result(job)


EACH = Protocol(RECIPE, ('darts-2nd', 'random'), (1, 2, 3), retrain='each_seed')


@pytest.mark.parametrize('protocol', [PROTOCOL, EACH], ids=['best', 'each seed'])
@pytest.mark.parametrize(
    'fail',
    [(), ('search darts-2nd 1',), ('search darts-2nd 1', 'search darts-2nd 2'), ('select darts-2nd 2', 'search darts-2nd 1')]
    + [('select random 1.2',), tuple(f'select random {seed}.{cell}' for seed in (1, 2) for cell in (1, 2))],
    ids=lambda keys: ', '.join(keys) or 'none',
)
def test_as_many_jobs_are_expected_as_there_are_in_the_end(fail: tuple[str, ...], protocol: Protocol) -> None:
    _, results = simulate(frozenset(fail), protocol=protocol)
    jobs = protocol.jobs(results, fail)
    assert protocol.expected(fail) == Counter((job.stage, job.strategy) for job in jobs)


@pytest.mark.parametrize('seed', range(10))
def test_every_job_once_whatever_the_order(seed: int) -> None:
    order, results = simulate(seed=seed)
    assert len(order) == len(set(order)) == 2 + 2 + 4 + 4
    assert results == simulate(seed=seed + 100)[1]
    for stage, later in (('search', 'select'), ('select', 'retrain')):
        for strategy in PROTOCOL.strategies:
            before = [i for i, key in enumerate(order) if key.startswith(f'{stage} {strategy}')]
            after = [i for i, key in enumerate(order) if key.startswith(f'{later} {strategy}')]
            if stage == 'select':
                assert max(before) < min(after)


def test_the_best_by_validation_is_retrained() -> None:
    _, results = simulate()
    for strategy in PROTOCOL.strategies:
        selected = {key: metric for key, metric in results.items() if key.startswith(f'select {strategy}')}
        best = max(selected.values(), key=lambda metric: metric['default'])
        retrained = [metric for key, metric in results.items() if key.startswith(f'retrain {strategy}')]
        assert [metric['arch'] for metric in retrained] == [best['arch']] * 2


@pytest.mark.parametrize('seed', range(5))
def test_the_best_cell_of_each_seed_is_retrained_if_asked(seed: int) -> None:
    order, results = simulate(seed=seed, protocol=EACH)
    assert len(order) == len(set(order)) == 3 + (3 + 6) + 6
    for strategy in EACH.strategies:
        for number in EACH.seeds:
            mine = {key: metric for key, metric in results.items() if key.startswith(f'select {strategy} {number}')}
            best = max(mine.values(), key=lambda metric: metric['default'])
            assert results[f'retrain {strategy} {number}']['arch'] == best['arch']
            # No other seed has to be waited for.
            assert max(map(order.index, mine)) < order.index(f'retrain {strategy} {number}')
    for row in summarize(EACH, EACH.jobs(results, ()), Standing(results), [], over=True)['strategies']:
        tests = [results[f'retrain {row["strategy"]} {number}']['test_accuracy'] for number in EACH.seeds]
        shown = [row['test'][name] for name in ('mean', 'sd', 'count')]
        assert shown == pytest.approx([statistics.fmean(tests), statistics.stdev(tests), 3])
        assert row['code'] == EACH.best(row['strategy'], results)['arch']


def test_a_seed_without_a_cell_is_left_out() -> None:
    order, _ = simulate(frozenset({'search darts-2nd 2'}), protocol=EACH)
    assert 'retrain darts-2nd 1' in order and 'retrain darts-2nd 2' not in order


def test_each_seeds_cell_is_retrained_once() -> None:
    with pytest.raises(InputError, match='each_seed trains the best cell of each seed once, so leave out retrain_runs: 2'):
        TunerArguments(retrain='each_seed', retrain_runs=2).load()


PRIOR = {'proxy': 'parameters', 'draw': 20}
RANKED = Protocol(
    Recipe.load(
        'digits',
        {
            'search.random_samples': 3,
            'search.settings': {
                'random': {'prior': PRIOR},
                'evolution': {'cells': 6, 'population': 4, 'parallel': 2, 'prior': PRIOR},
                'proxy': {'draw': 20, 'cells': 2},
            },
        },
    ),
    ('random', 'evolution', 'proxy', 'darts-1st'),
    (1, 2),
)


def ranked_result(job: Job) -> dict:
    """A ranking that prefers the last cells of a seed's draw."""
    if job.stage == 'search' and job.strategy != 'darts-1st':
        codes = [cell.code() for cell in reversed(RECIPE.random_cells(job.seed, 20))]
        return {'default': 0.0, 'seconds': 1.0, 'arch': codes[0], 'key': job.key, 'ranked': ' '.join(codes[:4])}
    return result(job)


@pytest.mark.parametrize('seed', range(5))
def test_a_ranking_is_a_search_before_the_cells_that_it_names(seed: int) -> None:
    rng, order, results = random.Random(seed), [], {}
    while ready := [job for job in RANKED.jobs(results, ()) if job.key not in results]:
        job = rng.choice(ready)
        order.append(job.key)
        results[job.key] = ranked_result(job)
    assert Counter(key.split()[0] for key in order) == {'search': 8, 'select': 2 * (3 + 6 + 2 + 1), 'retrain': 4}
    assert RANKED.expected() == Counter((key.split()[0], key.split()[1]) for key in order)
    for strategy, first in (('random', 3), ('evolution', 4), ('proxy', 2)):
        for number in RANKED.seeds:
            best = results[f'search {strategy} {number}']['ranked'].split()
            assert [results[f'select {strategy} {number}.{cell}']['arch'] for cell in range(1, first + 1)] == best[:first]
            assert order.index(f'search {strategy} {number}') < min(
                order.index(key) for key in order if key.startswith(f'select {strategy} {number}.')
            )


def test_a_ranking_that_failed_too_often_leaves_its_seed_out() -> None:
    fail = frozenset({'search random 1'})
    keys = [job.key for job in RANKED.jobs({}, fail)]
    assert not any(key.startswith('select random 1') for key in keys)
    assert RANKED.expected(fail)['select', 'random'] == RANKED.expected()['select', 'random'] - 3


def test_a_ranking_shows_no_validation_metric() -> None:
    results = {job.key: ranked_result(job) for job in RANKED.jobs({}, ())}
    rows = summarize(RANKED, RANKED.jobs(results, ()), Standing(results), [], over=False)['jobs']
    shown = {row['key']: row['valid'] for row in rows if row['stage'] == 'search'}
    assert shown['search proxy 1'] is None and shown['search darts-1st 1'] == results['search darts-1st 1']['default']


HALVED = Protocol(
    Recipe.load(
        'digits',
        {
            'search.random_samples': 5,
            'select.epochs': 4,
            'select.halving': {'eta': 2, 'min_epochs': 1},
            'search.settings': {'evolution': {'cells': 7, 'population': 3, 'parallel': 2}},
        },
    ),
    ('random', 'evolution', 'darts-1st'),
    (1, 2),
)


@pytest.mark.parametrize('seed', range(5))
def test_halved_trainings_run_once_and_in_the_same_way_whatever_the_order(seed: int) -> None:
    order, results = simulate(protocol=HALVED, seed=seed)
    assert len(order) == len(set(order)) and results == simulate(protocol=HALVED, seed=seed + 100)[1]
    # 5 cells: 5, 2, 1 parts; 7 cells: 7, 3, 1 parts; a supernet's single cell is trained in full.
    assert Counter((key.split()[0], key.split()[1]) for key in order) == HALVED.expected()
    assert HALVED.expected() == {
        ('select', 'random'): 16,
        ('retrain', 'random'): 1,
        ('select', 'evolution'): 22,
        ('retrain', 'evolution'): 1,
        ('search', 'darts-1st'): 2,
        ('select', 'darts-1st'): 2,
        ('retrain', 'darts-1st'): 1,
    }
    jobs = {job.key: job for job in HALVED.jobs(results, ())}
    for key, job in jobs.items():
        if job.part is not None and job.part[0]:
            assert order.index(job.after) < order.index(key) and jobs[job.after].part[1] == job.part[0]
            assert jobs[job.after].arch == job.arch and key == f'select {job.strategy} {job.seed}.{job.cell}@{job.part[1]}'
        elif job.part is not None:
            assert job.after == '' and job.part == (0, 1)
        assert job.last == (job.part is None or job.part[1] == 4)


def test_the_best_of_each_rung_is_promoted_and_the_best_of_the_last_one_retrained() -> None:
    _, results = simulate(protocol=HALVED)
    for number in HALVED.seeds:
        keys = {at: {cell: f'select random {number}.{cell}@{at}' for cell in range(1, 6)} for at in (1, 2, 4)}
        rungs = [{cell: results[key]['default'] for cell, key in mine.items() if key in results} for mine in keys.values()]
        assert list(map(len, rungs)) == [5, 2, 1]
        for shorter, longer in zip(rungs, rungs[1:]):
            assert set(longer) == set(sorted(shorter, key=lambda cell: -shorter[cell])[: len(longer)])
    for strategy in ('random', 'evolution'):
        full = [metric for key, metric in results.items() if key.startswith(f'select {strategy}') and key.endswith('@4')]
        assert results[f'retrain {strategy} 1']['arch'] == max(full, key=lambda metric: metric['default'])['arch']
        assert {metric['key'] for metric in HALVED.select_results(strategy, results)} == {metric['key'] for metric in full}


@pytest.mark.parametrize('fail', [('select random 1.2@1',), ('select evolution 2.1@1', 'select evolution 2.2@1')])
def test_a_part_that_failed_too_often_is_not_promoted(fail: tuple[str, ...]) -> None:
    order, results = simulate(frozenset(fail), protocol=HALVED)
    assert not any(key.startswith(failed.removesuffix('1')) for failed in fail for key in order)
    assert any(key.startswith('retrain random') for key in order) and any(key.startswith('retrain evolution') for key in order)


def test_the_cost_of_halved_trainings_is_that_of_all_parts() -> None:
    _, results = simulate(protocol=HALVED)
    results = {key: {**metric, 'passes': 0.7, 'parameters': 1, 'multiply_adds': 1} for key, metric in results.items()}
    summary = summarize(HALVED, HALVED.jobs(results, ()), Standing(results), [], over=True)
    row = next(row for row in summary['strategies'] if row['strategy'] == 'random')
    assert [entry['passes'] for entry in row['spent']] == pytest.approx([8 * 0.7] * 2)
    assert {entry['key'] for entry in summary['sizes']['select']['networks'] if entry['strategy'] == 'random'} == {
        key for key in results if key.startswith('select random') and key.endswith('@4')
    }
    assert sum('--stage select' in command for command in summary['commands']['again']) == 2 + 2 + 2


def test_test_accuracy_chooses_nothing() -> None:
    _, results = simulate()
    changed = {key: {**metric, 'test_accuracy': -1.0} for key, metric in results.items()}
    assert PROTOCOL.jobs(results, ()) == PROTOCOL.jobs(changed, ())


def test_a_job_given_up_does_not_hold_up_the_others() -> None:
    order, _ = simulate(frozenset({'search darts-2nd 1'}))
    assert 'select darts-2nd 2' in order and 'select darts-2nd 1' not in order
    assert 'retrain darts-2nd 1' in order
    order, _ = simulate(frozenset({'search darts-2nd 1', 'search darts-2nd 2'}))
    assert not any('darts-2nd' in key for key in order)
    assert 'retrain random 2' in order


EVOLVING = Protocol(RECIPE, ('evolution', 'random'), (1, 2))


@pytest.mark.parametrize('seed', range(5))
def test_evolution_trains_the_same_different_cells_whatever_the_order(seed: int) -> None:
    order, results = simulate(seed=seed, protocol=EVOLVING)
    assert results == simulate(seed=seed + 100, protocol=EVOLVING)[1]
    for of in (1, 2):
        cells = [results[f'select evolution {of}.{number}']['arch'] for number in range(1, 10)]
        assert len(set(cells)) == 9
        assert cells[:4] == [cell.code() for cell in RECIPE.random_cells(of, 4)]
    trained = [metric for key, metric in results.items() if key.startswith('select evolution')]
    assert len(trained) == 18
    assert results['retrain evolution 1']['arch'] == max(trained, key=lambda metric: metric['default'])['arch']
    assert order.index('retrain evolution 1') > max(index for index, key in enumerate(order) if key.startswith('select evolution'))


def test_evolution_offers_as_many_jobs_as_may_be_in_training() -> None:
    _, results = simulate(protocol=EVOLVING)
    finished = {key: metric for key, metric in results.items() if key in {f'select evolution 1.{number}' for number in range(1, 5)}}
    named = [job.key for job in EVOLVING.jobs(finished, ()) if job.key not in finished and job.strategy == 'evolution' and job.seed == 1]
    assert named == [f'select evolution 1.{number}' for number in (5, 6, 7)]


def test_evolution_goes_on_from_the_managers_records() -> None:
    _, unbroken = simulate(protocol=EVOLVING)
    for kept in (3, 9, 20):
        records = dict(list(unbroken.items())[:kept])
        order, resumed = simulate(seed=kept, protocol=EVOLVING, results=records)
        assert resumed == unbroken and not set(order) & set(records)


def test_evolution_goes_on_without_cells_that_were_given_up() -> None:
    lost = frozenset({'select evolution 1.2', 'select evolution 1.6', 'select evolution 2.9'})
    order, results = simulate(lost, protocol=EVOLVING)
    assert sum(key.startswith('select evolution') for key in order) == 15
    assert 'retrain evolution 1' in results


def test_random_search_has_no_search_trials() -> None:
    keys = [job.key for job in PROTOCOL.jobs({}, ())]
    assert keys == ['search darts-2nd 1', 'search darts-2nd 2'] + [f'select random {seed}.{cell}' for seed in (1, 2) for cell in (1, 2)]


@pytest.mark.parametrize(
    ('space', 'names'),
    [
        ({}, 'strategy'),
        ({'strategy': {'_type': 'choice', '_value': ['darts']}}, "unknown strategy 'darts'"),
        ({'strategy': {'_type': 'uniform', '_value': [0, 1]}}, '_type: choice'),
        ({'strategy': {'_type': 'choice', '_value': []}}, 'at least one'),
        ({'strategy': {'_type': 'choice', '_value': ['random']}, 'lr': {}}, 'it may have .seed., and settings'),
        ({'strategy': {'_type': 'choice', '_value': ['random']}, 'seed': {'_type': 'choice', '_value': [0]}}, 'from 1'),
        ({'strategy': {'_type': 'choice', '_value': ['random']}, 'seed': {'_type': 'choice', '_value': ['1']}}, "'1'"),
        ({'strategy': {'_type': 'choice', '_value': [3]}}, '3'),
        ({'strategy': {'_type': 'choice', '_value': [['random']]}}, "'random'"),
        ({'strategy': {'_type': 'choice', '_value': ['random']}, 'seed': {'_type': 'choice', '_value': [{1: 2}]}}, 'from 1'),
        (None, 'strategy'),
    ],
)
def test_wrong_search_spaces(space: object, names: str) -> None:
    with pytest.raises(InputError, match=names):
        parse_search_space(space)  # type: ignore[arg-type]


def test_repeated_values_count_once() -> None:
    space = {'strategy': {'_type': 'choice', '_value': ['random', 'random']}, 'seed': {'_type': 'choice', '_value': [2, 2]}}
    assert parse_search_space(space) == (('random',), (2,))


def record(identifier: str, status: str, key: str, metric: bool = False) -> TrialRecord:
    return TrialRecord(identifier, status, {'key': key}, {'key': key, 'default': 1.0} if metric else None)


def test_a_job_handed_over_is_busy_until_it_is_listed() -> None:
    ledger = Ledger(max_retries=1, grace_seconds=5)
    ledger.read([], 0)
    ledger.submitted('a')
    assert ledger.read([], 1).busy == {'a'}
    assert ledger.read([record('1', 'RUNNING', 'a')], 2).busy == {'a'}
    done = ledger.read([record('1', 'SUCCEEDED', 'a', metric=True)], 3)
    assert done.busy == set() and set(done.results) == {'a'}


def test_success_without_a_result_is_a_failure_after_a_grace_period() -> None:
    ledger = Ledger(max_retries=1, grace_seconds=5)
    for status in ('SUCCEEDED', 'FAILED', 'USER_CANCELED', 'SYS_CANCELED'):
        ledger = Ledger(max_retries=1, grace_seconds=5)
        assert ledger.read([record('1', status, 'a')], 0).busy == {'a'}
        late = ledger.read([record('1', status, 'a', metric=True)], 4)  # the metric came after the state
        assert set(late.results) == {'a'} and not late.failures
        standing = ledger.read([record('1', status, 'a')], 6)
        assert standing.failures['a'] == 1 and not standing.busy and not standing.given_up


def test_retries_are_bounded_and_the_count_survives_a_new_tuner() -> None:
    failed = [record('1', 'FAILED', 'a'), record('2', 'FAILED', 'a')]
    ledger = Ledger(max_retries=1, grace_seconds=5)
    ledger.read(failed, 0)
    assert ledger.read(failed, 6).given_up == {'a'}
    ledger = Ledger(max_retries=2, grace_seconds=5)
    ledger.read(failed, 0)
    standing = ledger.read(failed, 6)
    assert standing.failures['a'] == 2 and not standing.given_up and not standing.busy
    ledger.submitted('a')
    assert ledger.read(failed, 7).busy == {'a'}
    assert ledger.read([*failed, record('3', 'RUNNING', 'a')], 8).busy == {'a'}
    assert set(ledger.read([*failed, record('3', 'SUCCEEDED', 'a', metric=True)], 9).results) == {'a'}


def test_a_resumed_trial_is_running() -> None:
    for status in ('ADD_RESUMED', 'WAITING', 'RUNNING', 'UNKNOWN'):
        assert Ledger(1, 5).read([record('1', status, 'a')], 0).busy == {'a'}


def test_the_metric_has_the_last_word_on_its_name() -> None:
    mislabelled = TrialRecord('1', 'SUCCEEDED', {'key': 'b'}, {'key': 'a', 'default': 1.0})
    standing = Ledger(1, 5).read([mislabelled], 0)
    assert set(standing.results) == {'a'}


@pytest.mark.parametrize(
    ('value', 'found'),
    [('a/b', None), ('a//b', 'a//b'), ({'a': ['#']}, '#'), ({'http://x': 1}, 'http://x'), ([1, None, 2.0, True], None)],
)
def test_text_that_nni_cannot_carry(value: object, found: str | None) -> None:
    assert unsendable(value) == found


def test_the_table_has_mean_and_spread() -> None:
    _, results = simulate()
    from nni_darts.experiment.ledger import Standing

    summary = summarize(PROTOCOL, PROTOCOL.jobs(results, ()), Standing(results), [], over=True)
    table = format_table(summary)
    assert [line.split()[0] for line in table.splitlines()[2:]] == ['darts-2nd', 'random']
    row = summary['strategies'][0]
    values = [100 * results[f'select darts-2nd {seed}']['default'] for seed in (1, 2)]
    assert row['select']['mean'] * 100 == pytest.approx(sum(values) / 2)
    assert row['select']['sd'] * 100 == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert f'{sum(values) / 2:.2f} ±' in table


def choices(**values: list[object]) -> dict[str, object]:
    return {key.replace('__', '.'): {'_type': 'choice', '_value': value} for key, value in values.items()}


def test_settings_in_the_search_space_are_rows_of_their_own() -> None:
    space = choices(strategy=['darts-1st', 'random'], seed=[1, 2], search__random_samples=[2, 3], retrain__schedule=['step'])
    rows, seeds = parse_search_space(space)
    assert rows == tuple(
        f'{strategy} retrain.schedule=step search.random_samples={count}' for strategy in ('darts-1st', 'random') for count in (2, 3)
    )
    protocol = Protocol(Recipe.load('digits'), rows, seeds)
    assert [protocol.recipe_of(row).search.random_samples for row in rows] == [2, 3, 2, 3]
    assert {protocol.recipe_of(row).retrain.schedule for row in rows} == {'step'} and protocol.recipe.retrain.schedule == 'cosine'
    counts = Counter((job.stage, job.strategy) for job in protocol.jobs({}, ()))
    assert counts == Counter({**{('search', row): 2 for row in rows[:2]}, ('select', rows[2]): 4, ('select', rows[3]): 6})
    assert len({job.key for job in protocol.jobs({}, ())}) == sum(counts.values())


@pytest.mark.parametrize(
    ('space', 'words'),
    [
        (choices(strategy=['random'], data__path=['a', 'b']), 'settings of the recipe.s sections space, search, select, retrain'),
        (choices(strategy=['random'], search=[1]), 'settings of the recipe.s sections'),
        (choices(strategy=['random search.epochs=3']), 'must be the name of a strategy'),
        (choices(strategy=['random'], search__settings=[{}]), 'must be a number, a word, true, false or null'),
        (choices(strategy=['random'], search__epoch=[1]), "unknown key 'search.epoch'"),
        (choices(strategy=['random'], search__epochs=[0]), 'search.epochs = 0 is wrong'),
    ],
)
def test_wrong_settings_in_the_search_space_are_named(space: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Protocol(Recipe.load('digits'), *parse_search_space(space))


def test_a_shared_search_waits_for_the_search_without_a_selection_under_its_seed() -> None:
    protocol = Protocol(RECIPE, ('darts-1st', 'darts-pt', 'darts-2nd+pt', 'random'), (1, 2), share_search=True)
    after = {job.key: job.after for job in protocol.jobs({}, ()) if job.stage == 'search'}
    assert {key: value for key, value in after.items() if value} == {
        'search darts-pt 1': 'search darts-1st 1',
        'search darts-pt 2': 'search darts-1st 2',
    }
    rows = Protocol(RECIPE, ('darts-1st search.epochs=3', 'darts-1st+pt search.epochs=3', 'darts-1st+pt'), (1,), share_search=True)
    assert [job.after for job in rows.jobs({}, ()) if job.stage == 'search'] == ['', 'search darts-1st search.epochs=3 1', '']
    tuned = Protocol(RECIPE, ('darts-1st', 'darts-1st+pt search.tuning_epochs=1'), (1,), share_search=True)
    assert [job.after for job in tuned.jobs({}, ()) if job.stage == 'search'] == ['', 'search darts-1st 1']
    longer = Protocol(RECIPE, ('darts-1st', 'darts-1st+pt retrain.epochs=7 select.epochs=1'), (1,), share_search=True)
    assert [job.after for job in longer.jobs({}, ()) if job.stage == 'search'] == ['', 'search darts-1st 1']


def test_sharing_that_is_impossible_is_refused() -> None:
    for strategies in (('darts-1st', 'random'), ('darts-2nd', 'darts-1st+pt'), ('darts-1st+pt',), ('sgas', 'sgas+pt')):
        with pytest.raises(InputError, match='share_search: no strategy of this experiment can continue .*darts-1st and darts-1st\\+pt'):
            Protocol(RECIPE, strategies, (1,), share_search=True)
    with pytest.raises(InputError, match='share_search cannot be combined with a budget'):
        Protocol(Recipe.load('digits', {'budget.passes': 60}), ('darts-1st', 'darts-1st+pt'), (1,), share_search=True)
