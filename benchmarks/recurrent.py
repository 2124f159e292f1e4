"""Compares the published recurrent cell with an LSTM and a random cell in a small training on Penn Treebank.

Three language models with the same number of parameters are trained from scratch in the same way: with DARTS_V2's cell, with a random
cell of the same space, and with a plain LSTM of one layer. Everything else is the same: tied embedding, dropouts, batches, averaged SGD
after the non-monotone trigger, and epochs. Each model is tested once, with the weights that validated best.

    python -m benchmarks.recurrent --data ../shared/data/ptb --work FOLDER

It takes under an hour on one core. After an interruption, run the same command again to continue with the unfinished model.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import click
import torch
from pytorch_lightning import seed_everything
from torch import Tensor, nn

from benchmarks.common import benchmark, print_table
from nni_darts import PUBLISHED, Recipe, RnnGenotype
from nni_darts.data import TextData
from nni_darts.files import METRICS, write_text
from nni_darts.runs.tasks import task_of
from nni_darts.search_spaces import Dropouts
from nni_darts.search_spaces.recurrent import Encoded, dropout_mask
from nni_darts.training.best_epoch import BestEpoch
from nni_darts.training.run import EpochLog, create_trainer, epochs_of, last_checkpoint, quiet_lightning

WORDS = 200_000
"""Fraction of the training text, from its start; validation and test text are used in full."""

SETTINGS: dict[str, Any] = {
    'hidden': 128,
    'epochs': 12,
    'batch_size': 20,
    'bptt': 35,
    'learning_rate': 20.0,
    'weight_decay': 8e-7,
    'averaging': 2,
    # A small network on a fifth of the text, so dropout is lower than published.
    'dropouts': {'embedding': 0.1, 'input': 0.2, 'x': 0.1, 'hidden': 0.1, 'output': 0.3},
}
QUICK = {**SETTINGS, 'hidden': 16, 'epochs': 2}
SEED = 1


class LSTM(nn.Module):
    """A language model with one LSTM layer, in place of :class:`nni_darts.search_spaces.recurrent.RecurrentNetwork`.

    It has no dropout between time steps, because torch's LSTM is a single call.
    """

    def __init__(self, vocabulary: int, embedding: int, hidden: int, dropouts: Dropouts) -> None:
        super().__init__()
        self.dropouts = dropouts
        self.embedding = nn.Embedding(vocabulary, embedding)
        nn.init.uniform_(self.embedding.weight, -0.04, 0.04)
        self.lstm = nn.LSTM(embedding, hidden)
        self.project = nn.Linear(hidden, embedding, bias=False)
        self.decoder = nn.Linear(embedding, vocabulary)
        self.decoder.weight = self.embedding.weight
        nn.init.zeros_(self.decoder.bias)

    def encode(self, tokens: Tensor, hidden: Tensor | None = None) -> Encoded:
        """Encodes tokens as the recurrent network does; ``hidden`` has the LSTM's two states side by side, (B, 2·hidden)."""
        words = self.embedding(tokens)
        if self.training:
            words = words * dropout_mask(words, (self.embedding.num_embeddings, 1), self.dropouts.embedding)[tokens]
            for probability in (self.dropouts.input, self.dropouts.x):
                words = words * dropout_mask(words, (1, *words.shape[1:]), probability)
        states = None if hidden is None else tuple(part[None].contiguous() for part in hidden.chunk(2, dim=1))
        outputs, states = self.lstm(words, states)
        outputs = self.project(outputs)
        dropped = outputs * dropout_mask(outputs, (1, *outputs.shape[1:]), self.dropouts.output) if self.training else outputs
        return Encoded(torch.cat([state[0] for state in states], dim=1), outputs, dropped)


def count(network: nn.Module) -> int:
    """Returns the number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def lstm_of_size(parameters: int, vocabulary: int, embedding: int, dropouts: Dropouts) -> LSTM:
    """Returns the LSTM whose number of parameters is nearest; words have as many units as in the other networks."""
    with torch.device('meta'):
        sizes = {hidden: count(LSTM(vocabulary, embedding, hidden, dropouts)) for hidden in range(8, 8 * embedding, 2)}
    return LSTM(vocabulary, embedding, min(sizes, key=lambda hidden: abs(sizes[hidden] - parameters)), dropouts)


def train(recipe: Recipe, data: TextData, network: nn.Module, folder: Path) -> dict[str, Any]:
    """Trains and tests one network, or continues its training. Returns its result."""
    result = folder / 'result.json'
    if result.exists():
        return json.loads(result.read_text('utf-8'))
    task = task_of(recipe)
    module, datamodule = task.training(recipe, 'retrain', data, SEED)
    module.set_model(network)
    with quiet_lightning():
        settings, best = recipe.retrain, BestEpoch(recipe.metric)
        trainer = create_trainer(
            folder,
            recipe.model_copy(update={'accelerator': 'cpu'}),
            settings.epochs,
            log=EpochLog(folder / METRICS, _say),
            gradient_clip=settings.gradient_clip,
            callbacks=[best],
        )
        last = last_checkpoint(folder)
        trainer.fit(module, datamodule=datamodule, **({'ckpt_path': str(last), 'weights_only': True} if last else {}))
        test = trainer.test(module, datamodule=datamodule, verbose=False)[0]['test_perplexity']
    epochs = epochs_of(folder)
    found = {
        'parameters': count(network),
        **task.outcome(recipe, epochs[best.epoch - 1]),
        'test_perplexity': test,
        'curve': [epoch['valid_perplexity'] for epoch in epochs],
        'seconds': epochs[-1]['total_seconds'],
    }
    write_text(result, json.dumps(found) + '\n')
    return found


def _say(record: dict[str, float]) -> None:
    click.echo(f'  epoch {record["epoch"]}/{record["of"]}: valid {record["valid_perplexity"]:.2f}, {record["seconds"]:.0f} s', err=True)


@benchmark
@click.option('--data', required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help='Folder of ptb.train.txt, ….')
@click.option('--work', required=True, type=click.Path(path_type=Path, file_okay=False), help='Folder for everything that is trained.')
def main(data: Path, work: Path, quick: bool, json_file: Path | None) -> None:
    """Compare DARTS_V2's recurrent cell, a random cell and an LSTM with the same number of parameters."""
    settings = QUICK if quick else SETTINGS
    recipe = Recipe.load('ptb', {'data.path': str(data), 'retrain': settings})
    task = task_of(recipe)
    text = task.load(recipe)
    short = 8_000 if quick else None
    text = TextData(text.train[: short or WORDS], text.valid[:short], text.test[:short], text.words)
    cell = PUBLISHED['DARTS_V2-RNN']
    drawn = RnnGenotype.random(random.Random(SEED), nodes=cell.nodes)
    seed_everything(SEED, verbose=False)
    made = {'DARTS_V2': task.network(recipe, 'retrain', cell, text)}
    seed_everything(SEED, verbose=False)
    made[f'random {drawn.code()}'] = task.network(recipe, 'retrain', drawn, text)
    seed_everything(SEED, verbose=False)
    dropouts = Dropouts(**recipe.retrain.dropouts.model_dump())
    made['LSTM'] = lstm_of_size(count(made['DARTS_V2']), text.vocabulary, recipe.retrain.hidden, dropouts)
    rows = []
    for index, (name, network) in enumerate(made.items()):
        click.echo(name, err=True)
        seed_everything(SEED, verbose=False)
        found = train(recipe, text, network, work / f'{index}')
        rows.append(
            {
                'cell': name,
                'parameters': found['parameters'],
                'validation perplexity': found['valid_perplexity'],
                'test perplexity': found['test_perplexity'],
                'seconds': found['seconds'],
                'validation by epoch': ' '.join(f'{value:.1f}' for value in found['curve']),
            }
        )
    print_table(rows, json_file)


if __name__ == '__main__':
    main()
