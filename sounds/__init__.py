"""From a sound file to waveforms, and what is wrong with it."""
