"""Processes of one run hear at once that another has ended, whatever they do meanwhile."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

import pytest

from children import awaited, gone
from convnext.engine import peers
from convnext.engine.peers import Peers

# A rank whose main thread is in no collective: it looks at data, evaluates or writes.
BUSY = """
import sys, time, torch
from convnext.engine.distributed import join
with join(torch.device("cpu")) as world:
    print(world.rank, flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(peers, "ENDED_S", 0.05)
    monkeypatch.setattr(peers, "LEFT_S", 0.1)


class Rank:
    """A process's watch, without the process."""

    def __init__(self) -> None:
        self.lost = threading.Event()
        self.peers: Peers

    def killed(self) -> None:
        """What the system does for a process that ends: its connections are closed without a word."""
        self.peers._closed.set()
        self.peers._waker.send(b".")
        self.peers._thread.join()
        for each in (*self.peers._others, *filter(None, [self.peers._door]), self.peers._wakes, self.peers._waker):
            each.close()
        self.peers._chosen.close()


@contextlib.contextmanager
def ranks(count: int) -> Iterator[list[Rank]]:
    found = [Rank() for _ in range(count)]
    found[0].peers, place = Peers.listening(found[0].lost.set, count, "localhost")
    for rank in found[1:]:
        connected = Peers.connected(rank.lost.set, "127.0.0.1", place)
        assert connected
        rank.peers = connected
    assert awaited(lambda: len(found[0].peers._others) == count - 1)
    yield found
    for rank in found:
        if not rank.peers._closed.is_set():
            rank.peers.close("done")


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_all_others_hear_of_a_process_that_ends_without_a_word(quick, victim):
    with ranks(3) as found:
        found[victim].killed()
        assert all(rank.lost.wait(30) for rank in found if rank is not found[victim])
        assert not found[victim].lost.is_set()


@pytest.mark.parametrize("leaver", [0, 1])
def test_one_that_leaves_with_an_error_ends_those_that_do_not_raise_it_too(quick, leaver):
    with ranks(2) as found:
        found[leaver].peers.close("left")
        assert found[1 - leaver].lost.wait(30)


def test_one_that_fails_alone_ends_the_others_without_the_wait_for_their_own_words(quick, monkeypatch):
    monkeypatch.setattr(peers, "LEFT_S", 1000)
    with ranks(3) as found:
        found[1].peers.close("failed")
        assert found[0].lost.wait(30) and found[2].lost.wait(30)


@pytest.mark.parametrize("first", [0, 1])
def test_one_that_is_done_ends_nobody(quick, first):
    with ranks(2) as found:
        found[first].peers.close("done")
        assert not found[1 - first].lost.wait(0.5)


def test_one_that_notices_by_itself_is_not_ended(monkeypatch):
    monkeypatch.setattr(peers, "ENDED_S", 1000)
    with ranks(2) as found:
        found[1].killed()
        found[0].peers.close("lost")  # within ENDED_S
        assert not found[0].lost.is_set()


def test_a_stranger_is_not_heard(quick):
    with ranks(2) as found:
        assert found[0].peers._door
        port = found[0].peers._door.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"0" * 32 + b"x")
        assert not found[0].lost.wait(0.5) and len(found[0].peers._others) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: they have one address of their own")
def test_the_first_process_is_heard_at_whichever_address_of_its_own_machine_is_told():
    first, place = Peers.listening(lambda: None, 2, "127.0.0.2")
    other = Peers.connected(lambda: None, "127.0.0.2", place)
    assert other and awaited(lambda: len(first._others) == 1)
    other.close("done")
    first.close("done")


def test_where_nobody_listens_there_is_no_watch_and_no_error():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert Peers.connected(lambda: None, "127.0.0.1", f"{port} {'0' * 32}") is None


@pytest.mark.skipif(sys.platform != "linux", reason="NOT tested elsewhere: /proc tells which processes run")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_busy_ends_with_one_line_when_another_is_killed(loaded, victim):
    with loaded.ranks(BUSY) as started:
        assert [rank.stdout.readline() for rank in started] == ["0\n", "1\n"]
        started[victim].kill()
        assert gone([rank.pid for rank in started])
        told = started[1 - victim].communicate()[1].splitlines()
    assert started[1 - victim].returncode == 2
    assert len(told) == 1 and told[0].startswith("convnext: Another process of this run has ended without a word")
