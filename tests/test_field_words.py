"""Words of other projects on the command line and in Python are answered with ours, and nonsense with no guess."""

import pytest

import convnext as package
from cli_words import GIVE
from commands import convnext
from convnext.cli import VERBS as COMMANDS
from convnext.cli.options import parser_of
from convnext.cli.train import SHORT
from convnext.errors import ConvNeXtError, nearest
from convnext.recipes.peers import PEERS
from convnext.recipes.peers import VERBS as THEIR_VERBS
from convnext.recipes.spelling import FIELDS, fields


@pytest.mark.parametrize(("line", "parts"), GIVE)
def test_a_word_of_another_project_is_answered_with_ours_in_one_line(line, parts):
    said = convnext(*line.split()).line
    assert [part for part in parts if part not in said] == [], said


def test_every_option_of_the_table_is_one_that_the_command_has_or_will_say_nothing_of():
    later = {"--schedule.patience", "--minutes", "--freeze"}  # with a note for where they are not
    for verb, words in PEERS.items():
        known = parser_of(COMMANDS).verbs[verb].options | (fields() if verb == "train" else frozenset())
        for word, peer in words.items():
            flag = peer.option.split(" ")[0]
            assert not flag or flag in known or peer.otherwise, f"{verb} {word}: {flag}"
            assert peer.option or peer.note
            assert flag in known or flag in later or not flag
            theirs = f"--{word.replace('_', '-')}"
            assert theirs not in known or theirs == flag, f"{verb}: {word} is ours"
    assert set(THEIR_VERBS.values()) <= set(COMMANDS) and not set(THEIR_VERBS) & set(COMMANDS)


def test_python_calls_short_options_what_the_command_line_does():
    arguments = {"epochs": "schedule.epochs", "metric": "select.metric", "balance": "loss.balance"}  # of convnext.train
    assert {name: field for name, field in FIELDS.items() if name != "size"} | arguments == SHORT


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"lr0": 0.01}, "'lr0' is no argument of convnext.train: give overrides={\"optim.lr\": 0.01}."),
        ({"num_train_epochs": 3, "output_dir": "x"}, "give epochs=3, out='x'."),
        ({"bs": 4, "valid_pct": 0.1}, 'give val_share=0.1, overrides={"optim.batch": 4}.'),
        ({"optimizer": "AdamW"}, "give overrides={\"optim.name\": 'adamw'}."),
        ({"batch": 16}, 'give overrides={"optim.batch": 16}.'),
        ({"epoch": 3}, "Did you mean 'epochs'?"),
        ({"xyzzy": 3}, "'xyzzy' is no argument of convnext.train."),
    ],
)
def test_python_names_the_argument_and_raises_what_both_worlds_expect(words, says):
    with pytest.raises(ConvNeXtError) as refused:
        package.train("pets", **words)
    assert says in str(refused.value) and isinstance(refused.value, TypeError)
    assert words.keys() != {"xyzzy"} or "Did you mean" not in str(refused.value)


def test_create_takes_any_field_of_a_network_and_refuses_others_by_name():
    assert package.create("atto", stem="overlap", patch=2, classes=3).config.patch == 2
    with pytest.raises(ConvNeXtError, match="num_classes"):
        package.create("atto", num_classes=10)


@pytest.mark.parametrize(
    ("name", "names", "near"),
    [
        ("optim.lrr", ["optim.lr", "optim.eps"], "optim.lr"),
        ("optim.foo", ["optim.lr", "optim.momentum"], ""),
        ("optin.lr", ["optim.lr", "input.std"], "optim.lr"),
        ("mixup", ["augment.mixup", "micro-batch"], "augment.mixup"),
        ("dense.multiple", ["input.multiple", "head.most"], "input.multiple"),
        ("xyzzy", ["size", "style", "form"], ""),
        ("Atto", ["atto", "nano"], "atto"),
        ("banana", ["channels", "cat", "train"], ""),
    ],
)
def test_only_a_near_name_is_suggested(name, names, near):
    assert nearest(name, names) == (f" Did you mean '{near}'?" if near else "")
