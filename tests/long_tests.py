"""Tests that run with ``--long`` alone: what they show, shorter ones show likewise.

Most of their time is a compiler's. Each is the harder sibling of a test that always
runs (another family, structure or size of the same statement); before a release, and
after changes of what they are about, all are run.
"""

LONG = {
    "agreement/test_reference_lmm.py": ["test_criterion[insteval_ml]"],
    "compat/test_peers_own.py": [
        "test_statsmodels_own_tests_pass[bayes, joint mode]",
    ],
    "density/test_posterior_density.py": ["test_density_of_the_sampler[2]"],
    "estimate/test_generalised_lanes.py": [
        "test_fits[contaminated-slope]",
        "test_fits[fisher-same]",
        "test_fits[two-dispersions-mean]",
        "test_points[contaminated-slope]",
    ],
    "estimate/test_protocols.py": ["test_fitted[ml-nested]"],
    "estimate/test_response_lanes.py": ["test_lanes_are_the_loop[nested]"],
    "fitting/test_ordinal.py": ["test_profiles_hold_every_parameter"],
    "integrate/test_laplace_lanes.py": [
        "test_the_hessian_is_that_of_forward_mode[nbinom2-1-observed]",
        "test_the_hessian_is_that_of_forward_mode[binomial-1-observed]",
        "test_the_hessian_is_that_of_forward_mode[probit-2-observed]",
    ],
    "integrate/test_pieces.py": [
        "test_the_same_in_pieces[count-nbinom2-observed-True]",
        "test_the_same_in_pieces[yes-family3-expected-True]",
    ],
    "integrate/test_predictors.py": [
        "test_value_score_and_hessian[contaminated-crossed]",
        "test_value_score_and_hessian[contaminated-slope]",
        "test_value_score_and_hessian[zero-inflated-shared]",
        "test_value_score_and_hessian[zero-inflated-nested]",
        "test_the_search_finds_the_maximum[contaminated-shared]",
        "test_the_search_finds_the_maximum[zero-inflated-crossed]",
        "test_the_search_finds_the_maximum[zero-inflated-nested]",
        "test_two_dispersion_parameters_by_a_formula",
    ],
    "many/test_many_posteriors.py": ["test_simulation_based_calibration"],
    "model/test_structured_models.py": [
        "test_laplace_score_and_hessian",
        "test_laplace_lanes",
    ],
    "model/test_structures.py": [
        "test_laplace_score_and_hessian[cs]",
        "test_laplace_score_and_hessian[toep]",
        "test_linear_exact_hessian[mat]",
        "test_linear_exact_hessian[homcs]",
        "test_linear_exact_hessian[homtoep]",
        "test_linear_exact_hessian[homdiag]",
    ],
    "posterior/test_agreement.py": [
        "test_importance_sampling_agrees_with_nuts[grouseticks]",
        "test_importance_sampling_agrees_with_nuts[VerbAgg]",
    ],
    "posterior/test_calibration.py": [
        "test_posteriors_are_calibrated[zinb]",
        "test_posteriors_are_calibrated[ordinal]",
    ],
    "posterior/test_methods.py": [
        "test_a_prior_bounds_counts_that_are_all_zero[nbinom1]",
        "test_a_prior_bounds_counts_that_are_all_zero[nbinom2]",
        "test_intervals_of_standard_deviations_hold_what_they_say",
        "test_nested_laplace_on_cbpp[1]",
        "test_quadrature_is_chosen_for_small_binary_groups",
    ],
    "posterior/test_stochastic.py": ["test_a_family_of_ones_own"],
    "posterior/test_structured_posteriors.py": [
        "test_levels_that_are_unrelated_are_the_plain_model",
    ],
    "postestimation/test_power.py": [
        "test_terms_of_several_coefficients_have_likelihood_ratios",
    ],
    "runtime/test_cuda.py": [
        "test_programs_have_all_they_call_on_a_gpu[posteriors]",
    ],
    "runtime/test_device_benchmark.py": [
        f"test_every_line_runs_at_small_size[{line}]"
        for line in (
            "bootstrap",
            "chains",
            "counted-genes",
            "crossed-exact",
            "crossed-probes",
            "herds",
            "million-counts",
            "million-rows",
            "posteriors",
            "slopes",
        )
    ],
    "runtime/test_levels.py": ["test_two_devices[names1]"],
    "runtime/test_stored.py": [
        "test_programs_of_every_kind_are_read_by_a_second_process[False]",
    ],
    "streaming/test_crossed_generalised.py": [
        f"test_however_many_parts_and_whichever_sums[{way}]"
        for way in ("True-2", "False-2", "False-7")
    ],
}
