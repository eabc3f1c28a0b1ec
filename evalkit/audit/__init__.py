"""Published and own figures put to the test: readers turn files into figures, rules turn figures into findings."""
