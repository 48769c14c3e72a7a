"""How many weights each of several matrices keeps, of a number that is given for all of them."""

from collections.abc import Sequence


def shares(shapes: Sequence[tuple[int, int]], nonzero: float) -> list[float]:
    """The share of non-zero entries of each of several matrices (rows, inputs), so that all together have the
    share `nonzero`.

    Entries go to a matrix in proportion to rows + inputs, as many as there are to a row and to an input
    wherever they are, and no more than it has (the Erdos-Renyi rule of Mocanu et al. 2018): small matrices
    keep more.
    """
    left, open_to = nonzero * sum(rows * inputs for rows, inputs in shapes), set(range(len(shapes)))
    found = [1.0] * len(shapes)
    while open_to:
        each = left / sum(sum(shapes[n]) for n in open_to)
        full = {n for n in open_to if each * sum(shapes[n]) >= shapes[n][0] * shapes[n][1]}
        if not full:
            for n in open_to:
                found[n] = each * sum(shapes[n]) / (shapes[n][0] * shapes[n][1])
            break
        left -= sum(shapes[n][0] * shapes[n][1] for n in full)
        open_to -= full
    return found
