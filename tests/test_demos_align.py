"""Letters to phones: readers, metrics, losses, decoding and the demo itself, on made and on shipped words."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pages
import pytest
import torch
from pages import DEMOS

pytest.importorskip("sklearn", reason="the demo extra is not installed")
pytest.importorskip("matplotlib", reason="the demo extra is not installed")
pytest.importorskip("tqdm", reason="the demo extra is not installed")

from matplotlib.figure import Figure
from torch.nn import functional

from lpdiff.demos import harness
from lpdiff.demos.align import data, figures, losses, metrics, run, training
from lpdiff.demos.align.config import NAMES, Config, loss_of
from lpdiff.demos.align.decoding import Ensemble
from lpdiff.demos.align.model import AbstractTranscriber, Transcriber
from lpdiff.demos.align.monotonic import MonotonicTranscriber

SHARED = Path(__file__).parents[2] / "shared" / "data"


def levenshtein(a, b):
    """By the textbook."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@pytest.fixture
def words() -> data.Lexicon:
    """A language whose phones are the letters in capitals, x for two of them and h silent."""
    draw = random.Random(0)
    found = {}
    while len(found) < 120:
        word = "".join(draw.choice("abchxo") for _ in range(draw.randint(2, 5)))
        phones = [p for c in word for p in {"x": ("K", "S"), "h": ()}.get(c, (c.upper(),))]
        if phones:
            found[word] = (tuple(phones),)
    return found


@pytest.fixture
def task(words) -> training.Task:
    return training.Task.of(
        data.Corpus(data.drawn(words, 0, 80), data.drawn(words, 80, 20), data.drawn(words, 100, 20))
    )


@pytest.fixture(params=[Transcriber, MonotonicTranscriber])
def model(request, task) -> AbstractTranscriber:
    torch.manual_seed(0)
    return request.param(len(task.alphabet.letters), len(task.alphabet.phones), embedding=8, hidden=12)


class TestData:
    def test_lines_are_read(self, tmp_path):
        path = tmp_path / "words.tsv"
        path.write_text("read\tR IY D\nread\tR EH D\n\n가\tk a̠\nread\tR IY D\n", encoding="utf-8")
        found = data.read(path)
        assert found == {"read": (("R", "IY", "D"), ("R", "EH", "D")), "가": (("k", "a̠"),)}
        data.write(tmp_path / "again.tsv", found)
        assert data.read(tmp_path / "again.tsv") == found

    @pytest.mark.parametrize("line", ["no phones", "word\t", "\tA B", "word\t  "])
    def test_what_is_no_dictionary_is_named(self, line):
        with pytest.raises(ValueError, match=r"x\.tsv, line 2: expected a word, a tab"):
            data.parse(["a\tA", line], "x.tsv")

    def test_parts_share_no_word_and_smaller_ones_lie_within(self, tmp_path, words):
        folder = tmp_path / "cmudict_g2p"
        folder.mkdir()
        data.write(folder / "g014b2b.train", words)
        data.write(folder / "g014b2b.test", {"zz": (("Z",),), "é": (("E",),)})
        (folder / "g014b2b.test").write_bytes("zz\tZ\né\tE\n".encode("latin-1"))
        whole = data.load("cmudict", tmp_path, dev_words=20)
        assert len(whole.dev) == 20 and len(whole.train) == 100 and set(whole.test) == {"zz", "é"}
        assert not set(whole.dev) & set(whole.train) and {**whole.dev, **whole.train} == words
        less = data.load("cmudict", tmp_path, words=30, dev_words=20, test_words=1)
        assert list(less.train) == list(whole.train)[:30] and less.dev == whole.dev and len(less.test) == 1

    def test_sigmorphon(self, tmp_path, words):
        folder = tmp_path / "sigmorphon2021"
        folder.mkdir()
        for part, count in (("train", 50), ("dev", 7), ("test", 5)):
            data.write(folder / f"kor_{part}.tsv", data.drawn(words, 0, count))
        found = data.load("kor", tmp_path)
        assert (len(found.train), len(found.dev), len(found.test)) == (50, 7, 5)

    def test_what_is_missing_is_told(self, tmp_path):
        with pytest.raises(ValueError, match="expected one of cmudict-small, cmudict, dut"):
            data.load("english")
        with pytest.raises(ValueError, match="--data DIR"):
            data.load("kor")
        with pytest.raises(
            FileNotFoundError, match=r"holds no sigmorphon2021/kor_train\.tsv: give .* by --data"
        ):
            data.load("kor", tmp_path)

    def test_the_words_that_ship(self):
        corpus = data.load("cmudict-small")
        parts = (corpus.train, corpus.dev, corpus.test)
        assert [len(part) for part in parts] == [6000, 600, 600]
        assert len(set().union(*parts)) == 7200
        assert len(data.Alphabet.of(corpus.train).phones) == 40  # 39 and the end
        assert "Carnegie Mellon University" in (Path(data.__file__).parent / "cmudict/LICENSE").read_text()

    def test_they_are_drawn_by_the_rule(self):
        if not (SHARED / "cmudict_g2p").is_dir():
            pytest.skip("CMUdict is not beside the repository")
        assert data.load("cmudict-small") == data.load(
            "cmudict", SHARED, words=6000, dev_words=600, test_words=600
        )

    def test_hangul_is_taken_apart(self):
        assert [len(data.letters_of(word)) for word in ("가린", "é", "ab")] == [5, 2, 2]

    def test_batches_hold_each_example_once_and_one_length(self, task):
        seen = []
        for batch in task.train.batches(8, torch.Generator().manual_seed(1)):
            assert len(batch) <= 8 and batch.source.dim() == 2
            assert batch.target.shape[1] == batch.lengths.max()
            for row, k in enumerate(batch.index.tolist()):
                assert batch.source[row].equal(task.train.source[k])
                assert batch.target[row, : batch.lengths[row]].equal(
                    task.train.target[k, : batch.lengths[row]]
                )
            seen += batch.index.tolist()
        assert sorted(seen) == list(range(len(task.train)))

    def test_letters_and_phones_that_training_did_not_show(self):
        alphabet = data.Alphabet.of({"ab": (("A", "B"),)})
        found = data.Examples.of({"az": (("A", "Z"),)}, alphabet)
        assert found.source[0].tolist() == [1, data.UNKNOWN]
        assert found.target.tolist() == [[1, len(alphabet.phones)]]


class TestMetrics:
    def test_edit_distance(self):
        rapidfuzz = pytest.importorskip("rapidfuzz.distance", reason="rapidfuzz is not installed")
        draw = torch.Generator().manual_seed(0)
        outputs = torch.randint(0, 5, (200, 9), generator=draw)
        targets = torch.randint(1, 5, (200, 7), generator=draw)
        lengths = torch.randint(1, 8, (200,), generator=draw)
        found = metrics.edit_distance(outputs, targets, lengths).tolist()
        for row, distance in enumerate(found):
            output = outputs[row].tolist()
            output = output[: output.index(0)] if 0 in output else output
            target = targets[row, : lengths[row]].tolist()
            assert distance == levenshtein(output, target) == rapidfuzz.Levenshtein.distance(output, target)

    def test_rates_count_the_closest_reference(self):
        lexicon = {"a": (("A", "B", "C", "C"), ("A", "B")), "b": (("B",),), "c": (("C", "A", "C"),)}
        examples = data.Examples.of(lexicon, data.Alphabet.of(lexicon))
        wrote = {0: [1, 2, 0, 3], 1: [2, 0, 0, 0], 2: [3, 0, 0, 0]}  # AB right, B right, C: two missed
        outputs = torch.tensor([wrote[k] for k in examples.word.tolist()])
        rates = metrics.error_rates(outputs, examples)
        assert rates.phone == pytest.approx(100 * 2 / (2 + 1 + 3))
        assert rates.word == pytest.approx(100 / 3)
        assert rates.by_errors == pytest.approx((200 / 3, 0, 100 / 3, 0))
        outputs[-1] = 0  # three missed
        assert metrics.error_rates(outputs, examples).by_errors == pytest.approx((200 / 3, 0, 0, 100 / 3))


def certain(tokens, size):
    """Log-probabilities of distributions on single phones; the log of zero is -inf."""
    return functional.one_hot(tokens, size).double().log()


class TestLosses:
    def test_of_certain_outputs_the_alignment_is_the_edit_distance(self):
        draw = torch.Generator().manual_seed(2)
        outputs = torch.randint(0, 6, (300, 8), generator=draw)
        targets = torch.randint(1, 6, (300, 6), generator=draw)
        lengths = torch.randint(1, 7, (300,), generator=draw)
        own = (metrics.output_lengths(outputs) + 1).clamp(max=8)
        value = losses.alignment_value(certain(outputs, 6), targets, (own, lengths))
        assert value.equal(metrics.edit_distance(outputs, targets, lengths).double())

    def test_its_gradients_are_the_pairs_and_the_gaps(self):
        # Two outputs for one phone: the second is left out at 1 - p(end), and the phone costs 1 - p.
        probs = torch.tensor([[[0.1, 0.8, 0.1], [0.6, 0.3, 0.1]]], dtype=torch.float64, requires_grad=True)
        missing = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        target = torch.tensor([[1]])
        value = losses.alignment_value(probs.log(), target, (None, torch.tensor([1])), missing=missing)
        assert value.item() == pytest.approx(0.2 + 0.4)
        value.sum().backward()
        torch.testing.assert_close(probs.grad, torch.tensor([[[0.0, -1, 0], [-1, 0, 0]]]).double())
        assert missing.grad.item() == 0
        two = losses.alignment_value(probs.log(), torch.tensor([[1, 2, 2, 2]]), (None, None), missing=missing)
        assert torch.autograd.grad(two.sum(), missing)[0].item() == 2  # a price that learns would only fall

    def test_affine_gaps(self):
        """A run of missed phones, or of outputs too many, costs its first and a share of the others."""
        few, many = torch.tensor([[1, 0]]), torch.tensor([[1, 2, 3, 4, 5, 0]])
        for outputs, targets in ((few, many[:, :5]), (many, few[:, :1])):
            own = metrics.output_lengths(outputs) + 1
            lengths = (own, metrics.output_lengths(targets))
            value = losses.alignment_value(certain(outputs, 6), targets, lengths, extension=0.25)
            assert value.item() == pytest.approx(1 + 3 * 0.25)
            assert losses.alignment_value(certain(outputs, 6), targets, lengths).item() == 4

    def test_a_temperature_that_falls(self, task, model):
        batch, progress = max(task.train.batches(64), key=len), losses.Progress()
        config = Config(cost_temperature=0.2)
        annealed = loss_of("alignment-annealed", config, losses.Stopwatch(), losses.Prices(9), progress)
        for done, temperature in ((0.0, 1.0), (0.5, 0.2**0.5), (1.0, 0.2)):
            progress.done = done
            plain = losses.alignment(cost_temperature=temperature)
            torch.testing.assert_close(annealed(model.eval(), batch), plain(model, batch))

    def test_the_last_epoch_is_annealed(self, task, tmp_path):
        config = Config(epochs=3, hidden=4, embedding=4)
        seen = training.Training(config, task, 0, tmp_path, "alignment-annealed")
        done = []
        for number in range(3):
            seen.epoch(number, lambda **_: None)
            done.append(seen.progress.done)
        assert done == [0.0, 0.5, 1.0]

    def test_words_with_an_error_count_not_errors(self, task, model):
        batch = max(task.train.batches(64), key=len)
        with torch.no_grad():
            model.output.weight *= 9.0  # sure enough that words differ
        value = losses.alignment()(model.eval(), batch) * batch.lengths
        words = losses.alignment(words=True)(model, batch)
        torch.testing.assert_close(words, 1 - torch.exp(-value))
        assert value.max() > value.min() + 0.5
        # The more errors a word has, the less it pulls.
        bias = model.output.bias
        for k in (int(value.argmin()), int(value.argmax())):
            found, plain = (torch.autograd.grad(of[k], bias, retain_graph=True)[0] for of in (words, value))
            torch.testing.assert_close(found, torch.exp(-value[k]) * plain)

    def test_nll_costs(self):
        log_probs = torch.tensor([[[0.1, 0.8, 0.1], [0.6, 0.3, 0.1]]]).double().log()
        value = losses.alignment_value(
            log_probs, torch.tensor([[1]]), (None, torch.tensor([1])), cost="nll", missing=9.0
        )
        assert value.item() == pytest.approx(-torch.tensor([0.8 * 0.6]).log().item())

    def test_likelihood(self, task, model):
        model.eval()
        batch = task.train.batch([0])
        log_probs = model(model.encode(batch.source), losses.with_end(batch))
        told = functional.nll_loss(log_probs[0], losses.with_end(batch)[0])
        torch.testing.assert_close(losses.maximum_likelihood(model, batch), told[None])

    @pytest.mark.parametrize("name", NAMES)
    def test_every_method_reaches_every_weight(self, name, task, model):
        torch.manual_seed(1)
        batch = max(task.train.batches(64), key=len)
        prices = losses.Prices(model.phones)
        loss = loss_of(name, Config(rate=0.5), losses.Stopwatch(), prices, losses.Progress())(model, batch)
        assert loss.shape == (len(batch),) and bool(loss.isfinite().all())
        loss.sum().backward()
        for key, weight in model.named_parameters():
            assert weight.grad is not None and bool((weight.grad != 0).any()), key
        assert model.training
        assert (prices.logits.grad is not None) == (name == "alignment-gaps")

    def test_prices_of_missed_phones_keep_their_mean(self, task, model):
        """Free ones would fall to nothing: what one learns to save, another must cost."""
        with torch.no_grad():
            model.output.bias[data.END] += 5.0  # it writes little, and misses much
        prices = losses.Prices(model.phones)
        batch = max(task.train.batches(64), key=len)
        assert prices(batch.target).equal(torch.ones_like(batch.target, dtype=torch.float32))
        plain = losses.alignment()(model.eval(), batch)
        learned = losses.alignment(missing=prices)
        torch.testing.assert_close(learned(model, batch), plain)
        optimiser = torch.optim.Adam(prices.parameters(), lr=0.1)
        for _ in range(20):
            optimiser.zero_grad()
            learned(model, batch).sum().backward()
            optimiser.step()
        every = prices(torch.arange(model.phones))
        assert every.mean().item() == pytest.approx(1, rel=1e-5) and (every > 0).all() and every.std() > 0.1
        assert learned(model, batch).sum() < plain.sum()

    def test_sharpened_costs_come_to_the_edit_distance(self, task, model):
        """And by the way, the gradient leaves what is sure and goes to what is close."""
        model.eval()
        batch = max(task.train.batches(64), key=len)
        log_probs, own = losses.free_running(model, batch, "greedy")
        written = model.generate(model.encode(batch.source), log_probs.shape[1])
        target, lengths = batch.target, (own, batch.lengths)
        wanted = metrics.edit_distance(written, target, batch.lengths).double()
        far, near = (
            losses.alignment_value(log_probs.double(), target, lengths, temperature=t) for t in (1.0, 1e-4)
        )
        # The end that is written is a row too: it costs nothing, being certain.
        torch.testing.assert_close(near, wanted, atol=1e-3, rtol=0)
        assert (far - wanted).abs().max() > 0.1

    def test_scheduled_sampling_without_own_phones_is_likelihood(self, task, model):
        model.eval()
        batch = task.train.batch([3])
        own = losses.scheduled_sampling(0.0)(model, batch)
        torch.testing.assert_close(own, losses.maximum_likelihood(model, batch))
        fed = losses.scheduled_sampling(1.0)(model, batch)
        written = model.generate(model.encode(batch.source), batch.target.shape[1] + 1, past_end=True)
        log_probs = model(model.encode(batch.source), written)
        torch.testing.assert_close(fed, losses.likelihood(log_probs, batch))

    def test_scheduled_sampling_goes_on_after_an_end_of_its_own(self, task, model):
        """The target's phones come as they would have, whatever the network wrote in between."""
        model.eval()
        with torch.no_grad():
            model.output.bias[data.END] += 50.0
        batch = task.train.batch([3])
        torch.manual_seed(2)
        found = losses.scheduled_sampling(0.5)(model, batch)
        torch.manual_seed(2)
        wanted = losses.with_end(batch)
        own = torch.rand(wanted.shape) < 0.5
        assert own[0, :-2].any() and not own[0, 1:-1].all()
        fed = wanted.masked_fill(own, data.END)
        log_probs = model(model.encode(batch.source), fed)
        torch.testing.assert_close(found, losses.likelihood(log_probs, batch))

    def test_bfloat16_changes_little_and_log_probabilities_stay_float32(self, task, model):
        model.eval()
        batch = max(task.train.batches(64), key=len)
        gradients = []
        for enabled in (False, True):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                log_probs = model(model.encode(batch.source), losses.with_end(batch))
                losses.likelihood(log_probs, batch).sum().backward()
            assert log_probs.dtype == torch.float32
            gradients.append(torch.cat([p.grad.reshape(-1) for p in model.parameters()]))
        assert 0 < (gradients[1] - gradients[0]).norm() < 0.03 * gradients[0].norm()

    def test_draws_have_the_networks_probabilities(self):
        torch.manual_seed(0)
        log_probs = torch.tensor([[0.5, 0.3, 0.2]]).log().expand(20_000, -1)
        for temperature, wanted in ((1.0, [0.5, 0.3, 0.2]), (0.5, [25 / 38, 9 / 38, 4 / 38])):
            drawn = losses.draw(temperature)(0, log_probs)
            counts = torch.bincount(drawn, minlength=3) / 20_000
            torch.testing.assert_close(counts, torch.tensor(wanted), atol=0.015, rtol=0)

    def test_sampled_feeding_is_fed_what_it_drew(self, task, model):
        model.eval()
        batch = task.train.batch([2])
        torch.manual_seed(6)
        log_probs, rows = losses.free_running(model, batch, "sampled")
        torch.manual_seed(6)
        steps = batch.target.shape[1] + losses.EXTRA
        encoded = model.encode(batch.source)
        drawn = model.generate(encoded, steps, lambda _, p: torch.multinomial(p.exp(), 1)[:, 0])
        torch.testing.assert_close(log_probs, model(encoded, drawn))
        assert rows.item() == min(steps, int(metrics.output_lengths(drawn)) + 1)

    @pytest.mark.parametrize("brief", [0.0, 2.0])
    def test_minimum_risk_is_an_expectation(self, brief, task, model):
        """Over the outputs that were drawn; what is drawn again (most of brief ones are) counts once."""
        model.eval()
        with torch.no_grad():
            model.output.bias[data.END] += brief
        batch = task.train.batch([5])
        torch.manual_seed(4)
        found = losses.minimum_risk(8)(model, batch)
        torch.manual_seed(4)
        steps = batch.target.shape[1] + losses.EXTRA
        encoded = model.encode(batch.source.expand(9, -1))
        drawn = model.generate(encoded, steps, lambda k, p: torch.multinomial(p.exp(), 1)[:, 0])
        drawn[0] = functional.pad(batch.target[0], (0, losses.EXTRA))
        log_probs = model(encoded, drawn)
        outputs = {}
        for row in range(9):
            tokens = drawn[row].tolist()
            tokens = tokens[: tokens.index(0)] if 0 in tokens else tokens
            ends = tokens + [0] * (len(tokens) < steps)
            score = sum(float(log_probs[row, k, t].detach()) for k, t in enumerate(ends))
            outputs[tuple(tokens)] = torch.tensor(score).exp().item()
        target = batch.target[0].tolist()
        risk = sum(p * levenshtein(o, target) for o, p in outputs.items()) / sum(outputs.values())
        assert found.item() == pytest.approx(risk / len(target), rel=1e-5)
        assert (len(outputs) < 9) == (brief > 0)


class TestDecoding:
    def test_greedy_agrees_with_one_call_on_what_it_wrote(self, task, model):
        model.eval()
        for batch in task.train.batches(16):
            encoded = model.encode(batch.source)
            written = model.generate(encoded, 9, past_end=True)
            again = model(encoded, written)
            assert again.argmax(-1).equal(written)
            stepped = model.soft(
                encoded, 9, lambda p: functional.one_hot(p.argmax(-1), p.shape[-1]).to(p.dtype)
            )
            torch.testing.assert_close(stepped, again)

    def test_after_an_end_nothing_is_written(self, task, model):
        encoded = model.encode(torch.stack([task.train.source[0]] * 2))
        told = torch.tensor([[1, 2], [data.END, 3], [4, 3], [5, data.END], [6, 6], [1, 1]])
        found = model.generate(encoded, 6, lambda step, _: told[step])
        assert found.tolist() == [[1, 0, 0, 0, 0, 0], [2, 3, 3, 0, 0, 0]]
        assert model.generate(encoded, 6, lambda step, _: told[step], past_end=True).equal(told.T)

    def test_a_beam_of_one_is_greedy_and_a_wide_one_finds_the_likeliest(self, task, model):
        model.eval()
        batch = task.train.batch([7])
        encoded = model.encode(batch.source)
        assert model.beam(encoded, 6, 1).equal(model.generate(encoded, 6))
        phones = model.phones
        every = torch.cartesian_prod(*[torch.arange(phones)] * 3)
        wide = losses.Encoded(*(part.expand(len(every), *part.shape[1:]) for part in encoded))
        log_probs = model(wide, every).detach().gather(-1, every[..., None])[..., 0]
        counts = torch.arange(3) <= metrics.output_lengths(every)[:, None]
        best = every[(log_probs * counts).sum(1).argmax()]
        cut = best.masked_fill((best == 0).cummax(0).values, 0)
        assert model.beam(encoded, 3, phones**2)[0].equal(cut)

    def test_a_phone_is_read_from_any_letter_but_none_before_the_last(self, task):
        """The chance of an output, phone by phone, is the sum over all ways to read it in order."""
        torch.manual_seed(0)
        sizes = len(task.alphabet.letters), len(task.alphabet.phones)
        network = MonotonicTranscriber(*sizes, embedding=8, hidden=12).eval()
        for weight in network.parameters():
            weight.data.normal_(std=0.7)
        source = max(task.train.source[:20], key=len)[None]
        encoded, written = network.encode(source), torch.tensor([[3, 1, 1, 0]])
        letters, n = source.shape[1], written.shape[1]
        assert letters >= 4
        keys, states = encoded.keys[0], network.states(encoded, written)[0]
        by_pair = torch.tanh(
            network.mix(torch.cat((states[:, None].expand(-1, letters, -1), keys.expand(n, -1, -1)), -1))
        )
        phone = network.output(by_pair).softmax(-1)  # (n, letters, V)
        scores = (network.query(states) @ keys.T).exp()
        chances = torch.zeros(n)
        for way in itertools.combinations_with_replacement(range(letters), n):
            chance, before = torch.tensor(1.0), 0
            for j, i in enumerate(way):
                chance = chance * scores[j, i] / scores[j, before:].sum() * phone[j, i, written[0, j]]
                before = i
                if all(k == letters - 1 for k in way[j + 1 :]):  # each beginning of a way once
                    chances[j] += chance
        log_probs = network(encoded, written)
        assert torch.allclose(log_probs.exp().sum(-1), torch.ones(1, n))
        found = log_probs[0].gather(1, written[0, :, None])[:, 0]
        assert torch.allclose(found.cumsum(0).exp(), chances, rtol=1e-4)

    def test_networks_that_are_sure_of_much_have_derivatives(self, task, model):
        """Of probabilities below exp(-104), which a float does not hold."""
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(400.0)
        batch = task.train.batch([7, 7])
        found = losses.maximum_likelihood(model, batch)
        assert bool(found.isfinite().all()) and float(found.detach().max()) > 104
        found.sum().backward()
        assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters())

    def test_an_ensemble_writes_by_the_mean_of_probabilities(self, task, model):
        others = [model.eval()]
        for seed in (1, 2):
            torch.manual_seed(seed)
            others.append(training.network(task, Config(hidden=24 + seed, embedding=9)).eval())
        ensemble = Ensemble(others)
        batch = task.train.batch([7, 7])
        encoded = ensemble.encode(batch.source)
        told = torch.tensor([3, 5])
        state, last = ensemble.begin(encoded), told.new_full((2,), model.phones)
        own = [w.begin(e) for w, e in zip(others, encoded, strict=True)]
        for _ in range(2):
            steps = [w.write(e, last, s) for w, e, s in zip(others, encoded, own, strict=True)]
            log_probs, state = ensemble.write(encoded, last, state)
            torch.testing.assert_close(log_probs.exp(), sum(p.exp() for p, _ in steps) / 3)
            own, last = [after for _, after in steps], told
        alone = Ensemble([model])
        for width in (1, 4):
            found = training.decode(alone, task.dev, 9, width)
            assert found.equal(training.decode(model, task.dev, 9, width))

    def test_a_beam_is_that_of_a_plain_loop(self, task, model):
        """Every hypothesis read anew from its first phone: no states are carried, so none can be mixed up."""
        model.eval()
        with torch.no_grad():
            for seed in range(5):
                torch.manual_seed(seed)
                for weight in model.parameters():
                    weight.normal_(std=0.7)
                encoded = model.encode(task.train.source[2 + seed][None])
                assert model.beam(encoded, 6, 3)[0].tolist() == _plain_beam(model, encoded, 6, 3)

    def test_company_does_not_matter(self, task, model):
        alone = torch.cat([training.decode(model, _only(task.dev, k), 9) for k in range(len(task.dev))])
        assert alone.equal(training.decode(model, task.dev, 9))

    def test_gumbel_feeds_one_phone_and_softmax_a_mixture(self, task, model):
        batch = task.train.batch([2])
        torch.manual_seed(0)
        hot, _ = losses.free_running(model.eval(), batch, "gumbel", 1e-3)
        cold, _ = losses.free_running(model, batch, "softmax", 1e-4)
        greedy = model(model.encode(batch.source), model.generate(
            model.encode(batch.source), hot.shape[1], past_end=True))  # fmt: skip
        torch.testing.assert_close(cold, greedy, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(hot[:, 0], greedy[:, 0])


def _plain_beam(model, encoded, steps, width):
    kept = [(0.0, [])]
    for step in range(steps):
        grown = []
        for score, phones in kept:
            if data.END in phones:
                grown.append((score, [*phones, data.END]))
                continue
            log_probs = model(encoded, torch.tensor([[*phones, 0]]))[0, step]
            grown += [(score + float(p), [*phones, k]) for k, p in enumerate(log_probs)]
        kept = sorted(grown, key=lambda pair: -pair[0])[:width]
    return kept[0][1]


def _only(examples, k):
    return data.Examples(
        [examples.source[k]], examples.target[k : k + 1], examples.lengths[k : k + 1], torch.zeros(1).long()
    )


FLAGS = [
    "--words",
    "120",
    "--dev-words",
    "30",
    "--test-words",
    "31",
    "--hidden",
    "16",
    "--batch",
    "32",
    "--pretraining-epochs",
    "2",
]


def results(folder):
    return {path.parent.name: json.loads(path.read_text())["result"] for path in folder.rglob("result.json")}


class TestDemo:
    def test_it_runs_and_what_is_finished_is_not_run_again(self, tmp_path, capsys, monkeypatch):
        flags = [*FLAGS, "--epochs", "2", "--methods", "likelihood,alignment", "--output", str(tmp_path)]
        told = run.main([*flags, "--seeds", "1"])
        assert "fewer phone errors" in capsys.readouterr().out
        folder = tmp_path / "align" / "cmudict-small"
        assert json.loads((folder / "align.json").read_text()) == told
        for figure in ("curves.svg", "alignment.svg"):
            assert (folder / figure).stat().st_size > 10_000
        assert set(told["results"]) == {"pretrained", "likelihood", "alignment"}
        assert told["results"]["alignment"]["processor_seconds_in_alignment"][0] > 0
        assert all(len(p["rows"]) == len(p["costs"]) for p in told["pictures"])
        for found in told["results"].values():
            (shares,) = found["test_words_by_errors"]
            assert sum(shares) == pytest.approx(100, abs=0.01)
            # Of the 31 words of the test set, not of the 30 of the development set.
            assert all(
                31 * share / 100 == pytest.approx(round(31 * share / 100), abs=0.01) for share in shares
            )
            assert 100 - shares[0] == pytest.approx(found["test_word_error_rate"][0], abs=0.01)
        before = results(folder)

        def never(*_):
            raise AssertionError("trained again")

        monkeypatch.setattr(training.Training, "epoch", never)
        assert run.main([*flags, "--seeds", "1"]) == told
        with pytest.raises(harness.DemoError, match="epochs was 2, now 3"):
            run.main([*flags, "--seeds", "1", "--epochs", "3"])
        assert results(folder) == before

    def test_cut_off_it_goes_on_with_the_same_bits(self, tmp_path, monkeypatch):
        flags = [*FLAGS, "--epochs", "2", "--seeds", "1", "--methods", "alignment-gumbel", "--output"]
        run.main([*flags, str(tmp_path / "whole")])
        epoch = training.Training.epoch
        for stop in ((None, 1), ("alignment-gumbel", 1)):

            def cut(self, number, step, stop=stop):
                if (self.method, number) == stop:
                    torch.rand(5)
                    raise KeyboardInterrupt
                return epoch(self, number, step)

            monkeypatch.setattr(training.Training, "epoch", cut)
            with pytest.raises(KeyboardInterrupt):
                run.main([*flags, str(tmp_path / "cut")])
            torch.manual_seed(99)
        monkeypatch.setattr(training.Training, "epoch", epoch)
        run.main([*flags, str(tmp_path / "cut")])
        assert results(tmp_path / "cut") == results(tmp_path / "whole")
        for path in (tmp_path / "whole").rglob("weights.pt"):
            same = torch.load(tmp_path / "cut" / path.relative_to(tmp_path / "whole"), weights_only=True)
            for key, weight in torch.load(path, weights_only=True).items():
                assert weight.equal(same[key]), key

    def test_it_learns(self, task, tmp_path):
        torch.manual_seed(0)
        config = Config(hidden=32, batch=8, pretraining_epochs=20, learning_rate=0.01, dropout=0.0)
        trained = training.Training(config, task, 0, tmp_path)
        rows = [trained.epoch(k, lambda **_: None) for k in range(20)]
        assert rows[-1]["dev_phone_error_rate"] < 30 < rows[0]["dev_phone_error_rate"]
        with torch.no_grad():
            trained.model.output.bias[1] += 50
        trained.result()  # of the best epoch, whatever came after it
        assert training.rates(trained.model, task, task.dev).phone == trained.best.score

    @pytest.mark.parametrize(
        ("flags", "reason"),
        [
            (["--corpus", "kor"], "name its folder by --data DIR"),
            (["--corpus", "english"], "expected one of cmudict-small"),
            (["--methods", "alignment,alignment"], "expected each once"),
        ],
    )
    def test_flags_that_make_no_sense(self, flags, reason, capsys, tmp_path):
        with pytest.raises(SystemExit):
            run.main([*flags, "--output", str(tmp_path)])
        assert reason in capsys.readouterr().err

    def test_a_language_with_another_alphabet(self, tmp_path):
        if not (SHARED / "sigmorphon2021").is_dir():
            pytest.skip("the SIGMORPHON data are not beside the repository")
        told = run.main(
            ["--corpus", "kor", "--data", str(SHARED), "--words", "100", "--hidden", "8", "--seeds", "1",
             "--dev-words", "20", "--test-words", "20", "--pretraining-epochs", "1", "--epochs", "1",
             "--methods", "alignment", "--output", str(tmp_path)]
        )  # fmt: skip
        assert str(SHARED) not in json.dumps(told)


@pytest.fixture(scope="module")
def script():
    return pages.script("align")


class TestPage:
    def test_it_is_what_the_records_give(self, script):
        assert (DEMOS / "align.md").read_text() == script.page(), "run python docs/demos/align.py"

    def test_the_figures_are_there(self, script, tmp_path):
        script.main(["--page", str(tmp_path / "align.md"), "--figures", str(tmp_path)])
        drawn = sorted(path.name for path in tmp_path.glob("*.svg"))
        assert drawn == sorted(p.name for p in (DEMOS.parent / "figures").glob("demos-align-*.svg")) and drawn

    def test_every_method_has_a_line_of_its_own(self):
        record = json.loads((DEMOS / "results/align-cmudict-small.json").read_text())
        ax = Figure().subplots()
        figures.curves(record, ax)
        assert {line.get_label() for line in ax.lines} == {"pretraining", *record["config"]["methods"]}
        looks = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
        assert len(looks) == len(ax.lines) == len(record["results"])

    def test_gains_are_drawn_where_training_and_test_errors_say(self, script):
        """Errors of 4 % on training words and 8 % on test words; the alignment saves 1 and 3 of those 8."""
        record = {
            "config": {"corpus": "dut", "hidden": 12},
            "results": {
                "likelihood": {"train_phone_error_rate": [3.0, 5.0], "test_phone_error_rate": [7.0, 9.0]},
                "alignment-sampled": {"test_phone_error_rate": [6.0, 6.0]},
            },
        }
        ax = Figure().subplots()
        script.gains([record, {**record, "results": {"likelihood": record["results"]["likelihood"]}}], ax)
        (bar,) = ax.containers
        assert bar.lines[0].get_xydata().tolist() == [[0.5, 25.0]]
        (name,) = ax.texts
        assert name.get_text() == "Dutch 12"

    @pytest.mark.parametrize("path", sorted(DEMOS.glob("results/align-*.json")), ids=lambda path: path.stem)
    def test_records_are_whole_and_those_of_their_command(self, path, tmp_path):
        record = json.loads(path.read_text())
        config, seeds = record["config"], record["seeds"]
        assert set(record["results"]) == {run.PRETRAINED, *config["methods"]}
        assert seeds == list(range(config["seed"], config["seed"] + config["seeds"]))
        for name, found in record["results"].items():
            epochs = config["pretraining_epochs" if name == run.PRETRAINED else "epochs"]
            assert all(len(curve) == epochs for curve in found["curves"])
            assert all(len(values) == len(seeds) for key, values in found.items() if key != "together")
            assert len(found["together"]) == (8 if len(seeds) > 1 else 0)
            for seed, curve in enumerate(found["curves"]):
                # The epoch that was tested is the best one on the development set, and no other.
                assert found["dev_phone_error_rate"][seed] == min(curve)
                assert found["best_epoch"][seed] == curve.index(min(curve)) + 1
        words = record["command"].removeprefix("lpdiff demo align")
        words = words.replace("FOLDER", str(tmp_path)).split()
        told = Config.read([*words, "--output", str(tmp_path)], command="lpdiff demo align")
        assert told.what() == config
        assert all(name in run.table(record) for name in config["methods"])

    def test_a_changed_number_changes_it(self, script, tmp_path):
        for path in DEMOS.glob("results/align-*"):
            (tmp_path / path.name).write_text(path.read_text())
        path = next(tmp_path.glob("align-*.json"))
        record = json.loads(path.read_text())
        record["results"]["likelihood"]["test_phone_error_rate"][0] += 0.5
        path.write_text(json.dumps(record))
        assert script.page(tmp_path) != (DEMOS / "align.md").read_text()
