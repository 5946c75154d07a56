"""Everything needed to make training data and train the `nano` codec.

The data is procedural: pieces are composed as MIDI, rendered through free soundfonts and
mastered at random, so a codec can be trained without collecting anyone's recordings. One's own
music can be used as well (`training.collect`).
"""

# Before anything brings torch along: two trainings side by side must not spin for each other.
import streaming.support.compute  # noqa: F401
