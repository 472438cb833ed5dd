import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitwright.experiments.load_recipe import load_recipe
from bitwright.experiments.recipe import Recipe
from bitwright.experiments.scheme_settings import RefusedSettingError, is_within, scheme_of
from bitwright.hw_constraints.target import load_target
from bitwright.quant.formats import FORMATS, FloatFormat
from bitwright.quant.scheme import Granularity, QParamsSpec, QuantScheme, ScaleKind

DIGITS = load_recipe("digits", ["target=x86-vnni"])


def scheme(**sections: object) -> QuantScheme:
    recipe = Recipe.model_validate({**DIGITS.model_dump(), **sections})
    return scheme_of(recipe, load_target(recipe.target))


def test_without_replacements_it_is_the_targets_own_scheme() -> None:
    assert scheme() == load_target("x86-vnni").scheme()


def test_calibration_names_the_observer_of_activations_only() -> None:
    found = scheme(calibrate={"observer": "percentile", "observer_arguments": {"percentile": 99.9}})
    assert (found.activations.observer, dict(found.activations.observer_arguments)) == (
        "percentile",
        {"percentile": 99.9},
    )
    assert found.weights == load_target("x86-vnni").scheme().weights


def test_a_permitted_format_brings_its_own_symmetry() -> None:
    found = scheme(target="ethos-u85-1024", quantize={"activations": {"format": "int16"}})
    permitted = next(s for s in load_target("ethos-u85-1024").numerics.activations if s.format.name == "int16")
    assert (found.activations.format, found.activations.symmetric) == (permitted.format, permitted.symmetric)


def test_narrower_integers_live_in_permitted_ones() -> None:
    assert scheme(quantize={"weights": {"format": "int4"}}).weights.format.name == "int4"


@pytest.mark.parametrize(
    ("settings", "path", "value"),
    [
        ({"weights": {"format": "int16"}}, "quantize.weights.format", "'int16'"),
        ({"weights": {"format": "uint8"}}, "quantize.weights.format", "'uint8'"),
        ({"weights": {"symmetric": False}}, "quantize.weights.symmetric", "False"),
        ({"activations": {"granularity": "per_channel"}}, "quantize.activations.granularity", "'per_channel'"),
        ({"overrides": [{"operator": "linear", "weights": {"format": "float8_e4m3fn"}}]},
         r"quantize.overrides\[0\].weights.format", "'float8_e4m3fn'"),
    ],
)  # fmt: skip
def test_what_the_target_does_not_run_is_refused(settings: dict[str, object], path: str, value: str) -> None:
    with pytest.raises(RefusedSettingError, match=f"^{path} = {value}; target 'x86-vnni' accepts (u?int8) "):
        scheme(quantize=settings)


def test_overrides_select_layers_and_say_where_they_come_from() -> None:
    found = scheme(
        quantize={
            "overrides": [
                {"operator": "linear", "keep_float": True},
                {"module": "head", "activations": {"observer": "mse"}},
            ]
        }
    )
    linear, head = found.overrides
    assert linear.keep_float and linear.origin == "the recipe's quantize.overrides[0]"
    assert head.activations is not None and head.activations.observer == "mse"
    assert found.override_for(module_path="head.0", operator="conv2d") == head


BLOCK_SCALES = (ScaleKind.E8M0, ScaleKind.FLOAT8_E4M3)
specs = st.builds(
    lambda name, symmetric, granularity, size, scale_kind, dynamic: QParamsSpec(
        format=FORMATS[name],
        symmetric=symmetric or isinstance(FORMATS[name], FloatFormat) or scale_kind in BLOCK_SCALES,
        granularity=Granularity.PER_BLOCK if scale_kind in BLOCK_SCALES else granularity,
        block_size=size if Granularity.PER_BLOCK is granularity or scale_kind in BLOCK_SCALES else None,
        scale_kind=scale_kind,
        dynamic=dynamic,
    ),
    st.sampled_from(sorted(FORMATS)),
    st.booleans(),
    st.sampled_from(Granularity),
    st.sampled_from([16, 32]),
    st.sampled_from(ScaleKind),
    st.booleans(),
)


@given(specs)
def test_every_spec_is_within_itself(spec: QParamsSpec) -> None:
    assert is_within(spec, spec)


@given(specs, specs, specs)
def test_being_within_is_transitive(a: QParamsSpec, b: QParamsSpec, c: QParamsSpec) -> None:
    assert not (is_within(a, b) and is_within(b, c)) or is_within(a, c)
