"""Prints how long a training step takes beside PyTorch: `python tests/torch_twins.py [--compile] [TASK ...]`.

For the preset "toy" of each task (captioning, speech_to_text, text_to_image, adversarial; all by default) it
trains on the same batches, on the CPU: mmkeras's model as `build` compiles it, the same with XLA, and a PyTorch
module of the same layers. `--compile` adds a faster twin: `torch.compile`, channels last and the fused Adam. It
prints the time of a step, the loss of the last one, the share of the machine's peak, measured by one large
convolution, and the ratios to mmkeras.

Not a test. Needs PyTorch (extra `backends`), for `--compile` a C++ compiler, and an idle machine: PyTorch's
threads wait in a busy loop, and while other processes use the cores, a step takes many times as long.
"""

import os
import sys
import tempfile
import time
from unittest import mock

# Before Keras: it sets what TensorFlow reads when it loads.
import mmkeras  # isort: skip
import keras
import numpy as np
import tensorflow as tf
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.flop_counter import FlopCounterMode

from mmkeras.captioning.model import PRESETS as CAPTIONING
from mmkeras.nn.layers import DIAGONAL_WIDTH
from mmkeras.nn.spectrogram import mel_matrix
from mmkeras.speech_to_text.model import PRESETS as SPEECH
from mmkeras.text import vocabulary
from mmkeras.text_to_image.gan import model as gan
from mmkeras.text_to_image.model import PRESETS as TEXT_TO_IMAGE
from mmkeras.toy import builders

WARM_UP = 5  # the first steps trace and compile
STEPS, ROUNDS = 20, 7


class Decoder(nn.Module):
    """As mmkeras.nn.attention_decoder, with the dense layers that make the LSTM's first state."""

    def __init__(self, words, config):
        super().__init__()
        units = config.units
        self.embedding = nn.Embedding(words, config.embedding_dim)
        self.word_dropout = nn.Dropout1d(config.word_dropout)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = nn.LSTM(config.embedding_dim, units, batch_first=True)
        self.state = nn.Linear(units, 2 * units)
        self.query = nn.Linear(units, units)
        self.score = nn.Linear(units, 1, bias=False)
        self.combine = nn.Linear(2 * units, units)
        self.logits = nn.Linear(units, words)

    def forward(self, tokens, memory, pooled, mask=None):
        x = self.dropout(self.word_dropout(self.embedding(tokens)))  # (B, T, E)
        hidden, cell = torch.tanh(self.state(pooled))[None].chunk(2, dim=-1)  # (1, B, U) each
        x, _ = self.lstm(x, (hidden.contiguous(), cell.contiguous()))  # (B, T, U)
        scores = self.score(torch.tanh(self.query(x)[:, :, None] + memory[:, None]))[..., 0]  # (B, T, N)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        attention = scores.softmax(dim=-1)  # (B, T, N)
        x = torch.tanh(self.combine(torch.cat([x, attention @ memory], dim=-1)))  # (B, T, U)
        return self.logits(self.dropout(x)), attention  # (B, T, V)


def token_loss(logits, targets, smoothing):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, label_smoothing=smoothing)


class Captioning(nn.Module):
    config = CAPTIONING["toy"]

    def __init__(self, words):
        super().__init__()
        units, channels, network = self.config.units, 3, []
        for filters, kernels in ((16, (3,)), (32, (3, 3)), (64, (3, 1)), (128, (1, 1))):  # vgg_small
            if filters > 16:
                network.append(nn.MaxPool2d(2))
            for kernel in kernels:
                convolution = nn.Conv2d(channels, filters, kernel, padding="same", bias=False)
                network += [convolution, nn.BatchNorm2d(filters), nn.ReLU()]
                channels = filters
        self.network = nn.Sequential(*network)
        self.features = nn.Sequential(nn.Linear(channels, units), nn.ReLU(), nn.LayerNorm(units))
        cells = (self.config.image_size // 8) ** 2
        self.positions = nn.Parameter(0.3 * torch.randn(cells, units))
        self.memory = nn.Sequential(nn.Linear(units, units), nn.ReLU(), nn.LayerNorm(units))
        self.decoder = Decoder(words, self.config)

    def forward(self, image, tokens):
        grid = self.network(image / 127.5 - 1)  # (B, C, h, w)
        features = self.features(grid.flatten(2).transpose(1, 2))  # (B, h*w, U)
        memory = self.memory(features + self.positions)  # (B, h*w, U)
        return self.decoder(tokens, memory, features.mean(dim=1))

    def loss(self, outputs, targets):
        logits, attention = outputs
        entropy = -(attention * torch.log(attention + 1e-8)).sum(dim=-1)  # (B, T)
        loss = token_loss(logits, targets, self.config.label_smoothing)
        return loss + self.config.entropy_penalty * entropy.mean()


class SpeechToText(nn.Module):
    config = SPEECH["toy"]

    def __init__(self, words):
        super().__init__()
        config, units = self.config, self.config.units
        self.frame = config.sample_rate_hz * config.frame_ms // 1000  # samples
        self.hop = config.sample_rate_hz * config.hop_ms // 1000
        self.fft = 2 ** (self.frame - 1).bit_length()
        mel = mel_matrix(self.fft // 2 + 1, config.bands, config.sample_rate_hz)
        self.register_buffer("mel", torch.tensor(mel.T))
        self.register_buffer("window", torch.hann_window(self.frame))
        self.subsampling = nn.Conv1d(config.bands, units, config.subsampling, stride=config.subsampling)
        options = {"batch_first": True, "bidirectional": True, "dropout": config.dropout}
        self.lstm = nn.LSTM(units, units, num_layers=config.encoder_layers, **options)
        self.memory = nn.Sequential(nn.Linear(2 * units, units), nn.LayerNorm(units))
        self.decoder = Decoder(words, config)

    def log_mel(self, audio, length):
        """As mmkeras.nn.spectrogram.LogMel: (B, n), (B,) → (B, M, F) and the number of valid frames (B,)."""
        audio = audio * (torch.arange(audio.shape[1]) < length[:, None])
        audio = audio / torch.sqrt(audio.square().sum(dim=1) / length + 1e-10)[:, None]
        audio = F.pad(audio, (0, self.fft))  # (B, n + fft)
        options = {"window": self.window, "center": False, "return_complex": True}
        spectrum = torch.stft(audio, self.fft, self.hop, self.frame, **options)  # (B, fft/2 + 1, F)
        power = spectrum.real.square() + spectrum.imag.square()
        x = torch.log(self.mel @ power + 0.1)  # (B, M, F)
        frames = (length + self.hop - 1) // self.hop
        count = frames[:, None, None]  # (B, 1, 1)
        mask = torch.arange(x.shape[2]) < count  # (B, 1, F)
        x = (x - (x * mask).sum(dim=2, keepdim=True) / count) * mask
        return x / torch.sqrt(x.square().sum(dim=2, keepdim=True) / count + 1e-3), frames

    def spec_augment(self, x):
        for dim, share in ((1, 0.2), (1, 0.2), (2, 0.08), (2, 0.08)):  # two masks of bands, two of frames
            size = x.shape[dim]
            width = share * size * torch.rand(len(x), 1)
            start = (size - width) * torch.rand(len(x), 1)
            index = torch.arange(size)
            x = x * ((index < start) | (index >= start + width)).unsqueeze(3 - dim)
        return x

    def forward(self, audio, length, tokens):
        x, frames = self.log_mel(audio, length)  # (B, M, F)
        if self.training and self.config.spec_augment:
            x = self.spec_augment(x)
        joined = self.config.subsampling
        x = self.subsampling(F.pad(x, (0, joined - 1))).transpose(1, 2)  # (B, S, U)
        steps = (frames + joined - 1) // joined  # (B,)
        packed = pack_padded_sequence(x, steps, batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )  # (B, S, 2U)
        mask = torch.arange(x.shape[1]) < steps[:, None]  # (B, S)
        memory = self.memory(x) * mask[..., None]  # (B, S, U)
        pooled = memory.sum(dim=1) / steps[:, None]  # (B, U)
        return *self.decoder(tokens, memory, pooled, mask), mask

    def loss(self, outputs, targets):
        logits, attention, mask = outputs
        valid = targets != 0  # (B, T)
        progress, memory_progress = (m.cumsum(1) / m.sum(1, keepdim=True) for m in (valid, mask))
        distance = progress[:, :, None] - memory_progress[:, None]  # (B, T, S)
        far = 1 - torch.exp(-distance.square() / (2 * DIAGONAL_WIDTH**2))
        penalty = ((attention * far).sum(dim=2) * valid).sum() / valid.sum()
        loss = token_loss(logits, targets, self.config.label_smoothing)
        return loss + self.config.diagonal_penalty * penalty


class TextEncoder(nn.Module):
    """(B, T) → (B, U), the output of an LSTM at the last token."""

    def __init__(self, words, config):
        super().__init__()
        self.embedding = nn.Embedding(words, config.embedding_dim)
        nn.init.normal_(self.embedding.weight, std=0.5)
        self.lstm = nn.LSTM(config.embedding_dim, config.units, batch_first=True)

    def forward(self, tokens):
        lengths = (tokens != 0).sum(dim=1)
        packed = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
        return self.lstm(packed)[1][0][-1]


class TextToImage(nn.Module):
    config = TEXT_TO_IMAGE["toy"]

    def __init__(self, words):
        super().__init__()
        channels, side = self.config.channels, 4
        self.encoder = TextEncoder(words, self.config)
        grid = [nn.Linear(self.config.units, side * side * channels, bias=False)]
        grid += [nn.Unflatten(1, (channels, side, side)), nn.BatchNorm2d(channels), nn.ReLU()]
        while 2 * side < self.config.image_size:
            side, before, channels = 2 * side, channels, max(channels // 2, 32)
            convolution = nn.ConvTranspose2d(before, channels, 4, stride=2, padding=1, bias=False)
            grid += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        self.decoder = nn.Sequential(*grid, nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1))

    def forward(self, tokens):
        return self.decoder(self.encoder(tokens))  # (B, 3, S, S)

    def loss(self, logits, image):
        return F.binary_cross_entropy_with_logits(logits, image)


class Modulated(nn.Module):
    """A layer, conditional batch normalization and a leaky ReLU."""

    def __init__(self, layer, channels, condition):
        super().__init__()
        self.layer, self.normalization = layer, nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Linear(condition, channels), nn.Linear(condition, channels)

    def forward(self, x, condition):
        x = self.normalization(self.layer(x))
        x = x * self.scale(condition)[..., None, None] + self.shift(condition)[..., None, None]
        return F.leaky_relu(x, 0.2)


def downsampled(channels, size=64, before=3, filters=16):
    """Convolutions of stride 2, as mmkeras.text_to_image.gan.networks has them, down to 8 x 8 cells."""
    layers = []
    while size > 8:
        layers += [nn.Conv2d(before, filters, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        size, before, filters = size // 2, filters, min(2 * filters, channels)
    return nn.Sequential(*layers), before


class Generator(nn.Module):
    """Text and noise → image and stage-1 image as logits, mean and log-variance of the condition."""

    def __init__(self, config):
        super().__init__()
        size, channels, side = config.condition_dim + config.noise_dim, config.channels, 4
        self.augmented = nn.Linear(config.units, 2 * config.condition_dim)
        dense = nn.Linear(size, side * side * channels, bias=False)
        grid = nn.Sequential(dense, nn.Unflatten(1, (channels, side, side)))
        stage_1 = [Modulated(grid, channels, size)]
        while 4 * side < config.image_size:
            side, before, channels = 2 * side, channels, max(channels // 2, 32)
            layer = nn.ConvTranspose2d(before, channels, 4, stride=2, padding=1, bias=False)
            stage_1.append(Modulated(layer, channels, size))
        self.stage_1 = nn.ModuleList(stage_1)
        self.small = nn.ConvTranspose2d(channels, 3, 4, stride=2, padding=1)
        self.encoded = Modulated(nn.Conv2d(3, 32, 4, stride=2, padding=1, bias=False), 32, size)
        stage_2, before = [], 32 + channels
        for filters, upsampled in ((48, False), (48, False), (32, True), (16, True)):
            layer = nn.Conv2d(before, filters, 3, padding=1, bias=False)
            if upsampled:
                layer = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), layer)
            stage_2.append(Modulated(layer, filters, size))
            before = filters
        self.stage_2, self.image = nn.ModuleList(stage_2), nn.Conv2d(before, 3, 3, padding=1)

    def forward(self, text, condition_noise, noise):
        mean, log_variance = self.augmented(text).chunk(2, dim=1)  # (B, D)
        augmented = mean + torch.exp(log_variance / 2) * condition_noise  # (B, D)
        condition = torch.cat([augmented, noise], dim=1)  # (B, D + Z)
        x = condition
        for layer in self.stage_1:
            x = layer(x, condition)
        small = self.small(x)  # (B, 3, S/2, S/2)
        x = torch.cat([self.encoded(small.sigmoid(), condition), x], dim=1)
        for layer in self.stage_2:
            x = layer(x, condition)
        return self.image(x), small, mean, log_variance


class Discriminator(nn.Module):
    def __init__(self, units, features=128):
        super().__init__()
        self.grid, channels = downsampled(96)
        self.pooled = nn.Conv2d(channels, 96, 3, padding=1)
        self.cells = nn.Sequential(
            nn.Conv2d(channels, 96, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(96, 48, 3, padding=1)
        )
        self.outputs = nn.Linear(48 * 16 + 96, 1 + features)
        self.text = nn.Linear(units, features)

    def forward(self, image, text):
        x = self.grid(2 * image - 1)
        pooled = F.leaky_relu(self.pooled(x), 0.2).amax(dim=(2, 3))
        x = self.outputs(torch.cat([F.leaky_relu(self.cells(x), 0.2).flatten(1), pooled], dim=1))
        return x[:, 0], x[:, 1:], self.text(text)


class Matcher(nn.Module):
    def __init__(self, words, units, features=128):
        super().__init__()
        layers, before = [], 3
        for filters in (16, 32, 64, 64, 96):
            layers += [nn.Conv2d(before, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if filters <= 64 and len(layers) < 12 else []
            before = filters
        self.grid, self.cells = nn.Sequential(*layers), nn.Conv2d(96, 8, 1)
        self.features = nn.Sequential(nn.Linear(96 + 8 * 64, features), nn.ReLU())
        self.image, self.text = nn.Linear(features, features), nn.Linear(units, features)
        self.words = nn.Linear(features, words)

    def forward(self, image, text):
        x = self.grid(2 * image - 1)
        x = self.features(torch.cat([x.amax(dim=(2, 3)), F.relu(self.cells(x)).flatten(1)], dim=1))
        return self.image(x), self.text(text), self.words(x)


class Adversarial(nn.Module):
    """As mmkeras.text_to_image.gan.model, with one loss for all networks."""

    config = TEXT_TO_IMAGE["toy"]

    def __init__(self, words):
        super().__init__()
        config = self.config
        self.encoder, self.decoder = TextEncoder(words, config), Generator(config)
        self.discriminator, self.matcher = Discriminator(config.units), Matcher(words, config.units)
        grid, channels = downsampled(64)
        cells = [nn.Conv2d(channels, 32, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(32 * 64, 64)]
        self.posterior = nn.Sequential(grid, *cells, nn.LeakyReLU(0.2), nn.Linear(64, 2 * config.noise_dim))

    def forward(self, tokens):
        return self.encoder(tokens), tokens

    def loss(self, outputs, real):
        text, tokens = outputs
        half = len(tokens) // 2
        mean, log_variance = self.posterior(2 * real[:half] - 1).chunk(2, dim=1)  # (B/2, Z)
        noise = torch.randn(len(tokens), self.config.noise_dim)
        inferred = mean + torch.exp(log_variance / 2) * noise[:half]
        noise = torch.cat([inferred, noise[half:]])
        logits, small, *condition = self.decoder(
            text, torch.randn(len(tokens), self.config.condition_dim), noise
        )
        image = logits.sigmoid()
        noisy_real, noisy_fake = (x + gan.IMAGE_NOISE * torch.randn_like(x) for x in (real, image))

        realness, embedding, text_embedding = self.discriminator(noisy_real, text)
        fake_realness, fake_embedding, _ = self.discriminator(noisy_fake.detach(), text)
        wrong = score(embedding, text_embedding.roll(1, dims=0))
        is_wrong = (tokens != tokens.roll(1, dims=0)).any(dim=1)
        loss = F.relu(1 - realness - score(embedding, text_embedding)).mean()
        loss = loss + gan.NEGATIVE_WEIGHT * (is_wrong * F.relu(1 + realness + wrong)).mean()
        fake = fake_realness + score(fake_embedding, text_embedding)
        loss = loss + gan.NEGATIVE_WEIGHT * F.relu(1 + fake).mean()

        bag = torch.zeros(len(tokens), self.matcher.words.out_features).scatter(1, tokens, 1.0)
        embedding, matcher_text, words = self.matcher(noisy_real, text)
        loss = loss + contrastive(embedding, matcher_text, tokens) + bag_loss(words, bag)

        realness, embedding, _ = frozen_call(self.discriminator, noisy_fake, text)
        loss = loss - (realness + score(embedding, text_embedding.detach())).mean()
        self.matcher.eval()
        embedding, _, words = frozen_call(self.matcher, noisy_fake, text)
        self.matcher.train()
        loss = loss + contrastive(embedding, matcher_text.detach(), tokens) + bag_loss(words, bag)
        pixels = F.binary_cross_entropy_with_logits(logits[:half], real[:half])
        small_pixels = F.binary_cross_entropy_with_logits(small[:half], F.avg_pool2d(real[:half], 2))
        loss = loss + gan.IMAGE_WEIGHT * pixels + gan.STAGE_1_WEIGHT * small_pixels
        kl = gan.NOISE_KL_WEIGHT * divergence(mean, log_variance)
        return loss + kl + gan.CONDITION_KL_WEIGHT * divergence(*condition)


def frozen_call(network, *inputs):
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return functional_call(network, weights, inputs)


def score(image, text):
    return (image * text).sum(dim=1) / image.shape[1] ** 0.5


def contrastive(image, text, tokens):
    similarity = 10.0 * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # (B, B)
    positive = similarity.diagonal()[:, None]
    same = (tokens[:, None] == tokens[None]).all(dim=2)
    logits = torch.cat([positive, similarity - 1e9 * same], dim=1)
    return (logits.logsumexp(dim=1) - positive[:, 0]).mean()


def bag_loss(logits, bag):
    logits, bag = (x[:, len(vocabulary.SPECIAL) :] for x in (logits, bag))
    return F.binary_cross_entropy_with_logits(logits, bag, reduction="none").sum(dim=1).mean()


def divergence(mean, log_variance):
    return (torch.exp(log_variance) + mean**2 - 1 - log_variance).sum(dim=1).mean() / 2


TWINS = {
    "captioning": Captioning,
    "speech_to_text": SpeechToText,
    "text_to_image": TextToImage,
    "adversarial": Adversarial,
}


def to_torch(tensor):
    tensor = torch.tensor(tensor.numpy())
    if tensor.ndim == 4:  # images: PyTorch's channels come first
        return tensor.permute(0, 3, 1, 2).contiguous()
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def keras_run(model, batches):
    """A function that trains for a number of steps and returns the last loss."""

    def run(steps):
        for step in range(steps):
            result = model.train_on_batch(*batches[step % len(batches)])
        return np.ravel(result)[0]  # before the metrics

    return run


def torch_run(twin, batches, compiled=False):
    """The same for PyTorch."""
    batches = [({name: to_torch(x) for name, x in inputs.items()}, to_torch(y)) for inputs, y in batches]
    loss_of = lambda inputs, targets: twin.loss(twin(**inputs), targets)  # noqa: E731
    if compiled:
        twin.to(memory_format=torch.channels_last)
        loss_of = torch.compile(loss_of)
    adam = torch.optim.Adam(twin.parameters(), lr=twin.config.learning_rate, fused=compiled)

    def run(steps):
        twin.train()
        for step in range(steps):
            adam.zero_grad()
            loss = loss_of(*batches[step % len(batches)])
            loss.backward()
            nn.utils.clip_grad_norm_(twin.parameters(), 5.0)
            adam.step()
            last = loss.item()  # each step, as train_on_batch does
        return last

    return run


def operations(run):
    """Floating-point operations of one step, forward and backward, of products and convolutions."""
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        run(1)  # without oneDNN an LSTM is made of products that are counted
    return counter.get_total_flops()


def peak():
    """Operations per second of one large convolution in TensorFlow, the best of many."""
    x, kernel = tf.random.normal((16, 64, 64, 128)), tf.random.normal((3, 3, 128, 128))
    convolution = tf.function(lambda: tf.nn.conv2d(x, kernel, 1, "SAME"))
    times = []
    for _ in range(30):
        start = time.perf_counter()
        convolution()
        times.append(time.perf_counter() - start)
    return 2 * 16 * 64 * 64 * 9 * 128 * 128 / min(times)


@mock.patch.dict(builders.EXAMPLES, train=256, validation=8, test=8, test_unseen=8)
def compare(task, folder, compiled):
    options = {"adversarial": True} if task == "adversarial" else {}
    package = mmkeras.text_to_image if options else getattr(mmkeras, task)
    data = package.data("toy", data_dir=folder)
    # Batches of clips differ in length, and each length is traced and compiled.
    batches = list(data.train.take(1 if task == "speech_to_text" else 4))

    models = {xla: package.build("toy", vocabulary=data.vocabulary, **options) for xla in (True, False)}
    as_built = models[True].jit_compile
    for xla, model in models.items():
        model.jit_compile = xla
    twins = [TWINS[task](len(data.vocabulary)) for _ in range(1 + compiled)]
    ours = sum(int(np.prod(w.shape)) for w in models[True].trainable_weights)
    # PyTorch's LSTM has a second bias, which is redundant.
    theirs = sum(p.numel() for name, p in twins[0].named_parameters() if "bias_hh" not in name)
    print(f"{task}: batches of {data.batch_size}, {ours:,} parameters, {theirs:,} in PyTorch", flush=True)
    assert abs(theirs - ours) < 0.01 * ours

    runs = {"mmkeras": keras_run(models[as_built], batches)}
    runs[f"XLA {'off' if as_built else 'on'}"] = keras_run(models[not as_built], batches)
    runs["PyTorch"] = torch_run(twins[0], batches)
    if compiled:
        runs["torch.compile"] = torch_run(twins[1], batches, compiled=True)
    for run in runs.values():
        run(WARM_UP)
    gflop, best, losses, fastest = operations(runs["PyTorch"]) / 1e9, dict.fromkeys(runs, float("inf")), {}, 0
    for _ in range(ROUNDS):  # in turn, so that other load on the machine affects all of them
        fastest = max(fastest, peak() / 1e9)
        for name, run in runs.items():
            start = time.perf_counter()
            losses[name] = run(STEPS)
            best[name] = min(best[name], (time.perf_counter() - start) / STEPS)
    print(f"  {gflop:.2f} GFLOP a step; one large convolution: {fastest:.0f} GFLOP/s")
    for name, seconds in best.items():
        share, ratio = gflop / seconds / fastest, best["mmkeras"] / seconds
        line = f"{1e3 * seconds:6.1f} ms per step, loss {losses[name]:.3f}, {share:.0%} of the peak"
        print(f"  {name:13} {line}; mmkeras takes {ratio:.2f} times its time", flush=True)


if __name__ == "__main__":
    tf.config.set_visible_devices([], "GPU")
    torch.set_num_threads(os.cpu_count())
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    tasks = [argument for argument in sys.argv[1:] if argument != "--compile"]
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks or TWINS:
            compare(task, folder, "--compile" in sys.argv)
