"""What is measured of heads, as functions of maps and outputs, which come in chunks.

A is a head's map, N rows of weights over the tokens that its queries may see; O_g head g's output, (N, d).

    distance           mean over i of sum_j A_ij |x_i - x_j|, in pixels; ``distance_ratio``: over that of uniform
                       attention (arXiv 2010.11929, 2108.08810)
    entropy            -sum A log A, over the log of the number of keys that may be seen (arXiv 1905.09418)
    confidence         mean over i of max_j A_ij (arXiv 1905.09418)
    map_similarity     cosine of the centred maps A - 1/N (after arXiv 2103.11886)
    map_divergence     Jensen-Shannon divergence of two heads' rows, in bits (arXiv 1906.04341)
    output_similarity  cosine of O_g and O_h, token by token (arXiv 1810.10183)
    output_variance    sum |O_g - mean O|^2 / sum |O_g|^2 (arXiv 2402.17507, section 5)
    cka                |Y^T X|^2 / (|X^T X| |Y^T Y|) of centred outputs; ``cka_debiased`` with the unbiased estimator
                       (arXiv 1905.00414, 2010.15327)
    effective_heads    exp of the entropy of the eigenvalues of (similarity matrix / h), 1 to h (arXiv 2210.02410)
    output_rank        |O_g|_F^2 / s_1^2, s_1 the largest singular value of O_g: 1 to d (stable rank; arXiv 2606.08105)
    sink_share         the largest mean over i of A_ij, over all tokens j; that j is the head's sink (arXiv 2606.08105)
    sink_value_norm    |v_s| over the mean |v_j| of the other tokens, s the sink, v what the projection has yet to mix
    alignment          Jaccard of the top 60 % of attention with a mask, 0 at chance, 1 at a match (arXiv 2104.14294)
"""
