"""4D-spacetime models: where every atom is at any time, from where and how fast it was.

``coordinates`` describe a shape; ``model`` and what it is built from (``basis``, ``features``,
``polynomial``, ``isomers``, ``symmetry``) tell how it changes; ``motion`` puts it back into space;
``learning`` fits models to trajectories; ``propagation`` chains segments, held to the energy of a
``surface``; ``judging`` says how good a model is and where it cannot be trusted.
"""
