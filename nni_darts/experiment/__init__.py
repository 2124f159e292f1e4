"""The programs that NNI starts: the tuner in its own process, and the trials. Only the trial's work imports torch."""
