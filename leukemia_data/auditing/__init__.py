"""What is wrong with a data set, and whose cells renumbered files show."""
