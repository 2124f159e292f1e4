"""The command line, which runs every stage without NNI's manager through the same functions as the trials."""

# Importing these modules adds their commands to the group.
from nni_darts.cli import about, doctor, experiments, fit, genotypes, latency, models, overview, results, runs, start
from nni_darts.cli.group import main

__all__ = ['about', 'doctor', 'experiments', 'fit', 'genotypes', 'latency', 'main', 'models', 'overview', 'results', 'runs', 'start']
