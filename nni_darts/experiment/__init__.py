"""The programs that NNI starts: the tuner, which has a process of its own, and the trials. Only running a trial imports torch."""
