"""Trainings of ``zoo``, each as a user of the library would write it, at a small size."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

nn: Any = torch.nn
F: Any = torch.nn.functional
CE = nn.CrossEntropyLoss()
STEPS = 6


@dataclass
class Training:
    """A training that has not begun."""

    model: Any
    """What is recorded."""
    step: Callable[[int], tuple[Any, Any, Any]]
    """Makes step ``i``; gives its loss and what ``record`` is given."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of ``Recorder``."""
    optimizer: Any = None
    also: tuple[Any, ...] = ()
    """Whatever else has a ``state_dict``: other networks, averages, schedules."""


TRAININGS: dict[str, Callable[[], Training]] = {}


def training(name: str) -> Callable[[Callable[[], Training]], Callable[[], Training]]:
    """Add one to the table."""

    def added(make: Callable[[], Training]) -> Callable[[], Training]:
        TRAININGS[name] = make
        return make

    return added


# --- data and loops ----------------------------------------------------------------------------------------


def images(edge: int = 24, size: int = 4, classes: int = 4) -> Iterator[tuple[Any, Any]]:
    """Endless batches of a shuffling loader, whose dataset flips images by the global generator."""

    class Flipped(torch.utils.data.Dataset):  # type: ignore[misc]
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            self.y = torch.tensor(rng.integers(0, classes, 48))
            noise = torch.tensor(rng.normal(size=(48, 3, edge, edge)), dtype=torch.float32)
            self.x = noise + self.y[:, None, None, None] * 0.5

        def __len__(self) -> int:
            return len(self.y)

        def __getitem__(self, i: int) -> Any:
            return (self.x[i].flip(-1) if torch.rand(()) < 0.5 else self.x[i]), self.y[i]

    loader = torch.utils.data.DataLoader(Flipped(), batch_size=size, shuffle=True)
    while True:
        yield from loader


def labelled(*shape: int, size: int = 8, classes: int = 4) -> Iterator[tuple[Any, Any]]:
    """Endless rows of this shape, whose mean is their class."""
    rng = np.random.default_rng(0)
    while True:
        y = torch.tensor(rng.integers(0, classes, size))
        yield torch.tensor(rng.normal(size=(size, *shape)), dtype=torch.float32) + y.view(-1, *[1] * len(shape)), y


def masks(edge: int = 32) -> Iterator[tuple[Any, Any]]:
    """Images, and of each pixel whether it is bright."""
    rng = np.random.default_rng(1)
    while True:
        x = torch.tensor(rng.normal(size=(4, 3, edge, edge)), dtype=torch.float32)
        yield x, (x.mean(1) > 0).long()


def views() -> Iterator[tuple[Any, Any]]:
    """Two views of each image."""
    for x, _ in images():
        yield x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x)


def loop(model: Any, optimizer: Any, batch: Callable[[], tuple[Any, Any, Any]], **options: Any) -> Training:
    """A loop whose ``batch`` gives a loss and what ``record`` is given."""
    model.train()

    def step(i: int) -> Any:
        loss, x, y = batch()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach(), x, y

    return Training(model, step, options, optimizer)


def supervised(
    model: Any,
    data: Iterator[tuple[Any, Any]],
    loss: Any = CE,
    optimizer: Any = None,
    around: Callable[[], Any] = nullcontext,
    after: Callable[[int], Any] = lambda i: None,
    call: Callable[..., Any] | None = None,
    also: tuple[Any, ...] = (),
) -> Training:
    """The usual loop."""

    def batch() -> Any:
        x, y = next(data)
        with around():
            return loss((call or type(model).__call__)(model, x), y), x, y

    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.002, momentum=0.9)
    made = loop(model, optimizer, batch, loss=loss, **({"forward": call} if call else {}))
    inner, made.also = made.step, also

    def step(i: int) -> Any:
        found = inner(i)
        after(i)
        return found

    made.step = step
    return made


# --- torchvision --------------------------------------------------------------------------------------------


@functools.cache
def package(name: str) -> Any:
    """A package; torchvision first, since others import it. Its wheels on PyPI need CUDA, see ``_without_cuda``."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        _without_cuda()
    return importlib.import_module(name)


def _without_cuda() -> None:
    """Load torchvision where its compiled operations cannot be: the one that is needed is in Python then."""
    for name in [n for n in sys.modules if n.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    _without_cuda.kept = library  # type: ignore[attr-defined]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.impl("nms", _nms, "CPU")
    vision = importlib.import_module("torchvision")
    vision.ops.boxes._assert_has_ops = lambda: None
    pooled: Any = sys.modules["torchvision.ops.roi_align"]
    pooled._roi_align = pooled._roi_align.__wrapped__  # which takes half a minute to be compiled


def _nms(boxes: Any, scores: Any, threshold: float) -> Any:
    order = scores.argsort(descending=True)
    over, kept = (package("torchvision").ops.box_iou(boxes[order], boxes[order]) > threshold).numpy(), []
    free = np.ones(len(over), bool)
    for i in range(len(over)):
        if free[i]:
            kept.append(i)
            free &= ~over[i]
    return order[kept]


def resnet(classes: int = 4) -> Any:
    """The smallest that torchvision's class makes."""
    made = package("torchvision").models.resnet
    return made.ResNet(made.BasicBlock, [1, 1, 1, 1], num_classes=classes)


CLASSIFIERS = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "densenet121")
for _name in CLASSIFIERS:

    @training(f"torchvision {_name}")
    def _classifier(name: str = _name) -> Training:
        options = {"memory_efficient": True} if name.startswith("densenet") else {}
        return supervised(package("torchvision").models.get_model(name, num_classes=4, **options), images(32))


@training("torchvision googlenet, auxiliary losses in training mode alone")
def _googlenet() -> Training:
    def loss(out: Any, y: Any) -> Any:
        return CE(out.logits, y) + 0.3 * (CE(out.aux_logits1, y) + CE(out.aux_logits2, y))

    return supervised(package("torchvision").models.googlenet(num_classes=4, init_weights=False), images(64), loss)


@training("torchvision deeplabv3_mobilenet_v3_large, auxiliary head")
def _deeplab() -> Training:
    made = package("torchvision").models.segmentation.deeplabv3_mobilenet_v3_large
    model = made(weights=None, weights_backbone=None, num_classes=2, aux_loss=True)
    return supervised(model, masks(64), lambda out, y: CE(out["out"], y) + 0.5 * CE(out["aux"], y))


@training("torchvision RetinaNet with BatchNorm, losses in training mode, boxes in eval mode")
def _retinanet() -> Training:
    detection = package("torchvision").models.detection
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    model = detection.RetinaNet(backbone, 2, min_size=64, max_size=64, topk_candidates=20)
    rng = np.random.default_rng(2)

    def batch() -> Any:
        pictures = [torch.tensor(rng.random((3, 64, 64)), dtype=torch.float32) for _ in range(2)]
        targets = [{"boxes": torch.tensor([[4.0, 6.0, 30.0, 40.0]]), "labels": torch.tensor([1])} for _ in range(2)]
        return sum(model(pictures, targets).values()), (pictures, targets), None

    optimizer = torch.optim.SGD(model.parameters(), 0.001)
    return loop(model, optimizer, batch, loss=lambda out, _: sum(out.values()))


@training("torchvision quantization-aware mobilenet_v2")
def _quantized() -> Training:
    model = package("torchvision").models.quantization.mobilenet_v2(num_classes=4, quantize=False)
    model.train()
    model.fuse_model(is_qat=True)
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    torch.ao.quantization.prepare_qat(model, inplace=True)
    return supervised(model, images(32))


@training("torchvision's references: AveragedModel, warm-up, label smoothing, MixUp and CutMix")
def _references() -> Training:
    v2 = package("torchvision.transforms.v2")
    model, mix = resnet(), v2.RandomChoice([v2.MixUp(num_classes=4), v2.CutMix(num_classes=4)])
    optimizer = torch.optim.SGD(model.parameters(), 0.005, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=5)
    averaging = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)

    def after(i: int) -> None:
        schedule.step()
        average.update_parameters(model)

    data = (mix(x, y) for x, y in images())
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    return supervised(model, data, loss, optimizer, after=after, also=(average, schedule))


# --- ways to train ------------------------------------------------------------------------------------------


@training("torch.compile, backend eager")
def _compiled() -> Training:
    return supervised(torch.compile(resnet(), backend="eager"), images())


@training("channels_last and bfloat16 autocast")
def _autocast() -> Training:
    data = ((x.to(memory_format=torch.channels_last), y) for x, y in images())
    model = resnet().to(memory_format=torch.channels_last)
    return supervised(model, data, around=lambda: torch.autocast("cpu", torch.bfloat16))


@training("wholly bfloat16")
def _half() -> Training:
    return supervised(resnet().bfloat16(), ((x.bfloat16(), y) for x, y in images()), lambda p, y: CE(p.float(), y))


@training("SyncBatchNorm in one process")
def _sync() -> Training:
    return supervised(nn.SyncBatchNorm.convert_sync_batchnorm(resnet()), images())


@training("an AveragedModel is recorded")
def _averaged() -> Training:
    model = resnet()
    average = torch.optim.swa_utils.AveragedModel(model)
    made = supervised(model, images(), after=lambda i: average.update_parameters(model))
    return Training(average, made.step, made.options, made.optimizer, (model,))


@training("checkpoint_sequential")
def _checkpointed() -> Training:
    checkpoint = importlib.import_module("torch.utils.checkpoint").checkpoint_sequential
    model = nn.Sequential(*list(resnet().children())[:-1], nn.Flatten(), nn.Dropout(0.2), nn.Linear(512, 4))
    return supervised(model, images(), call=lambda model, x: checkpoint(model, 3, x, use_reentrant=False))


@training("spectral and weight norm by parametrize, pruned")
def _parametrized() -> Training:
    model = resnet()
    nn.utils.parametrizations.spectral_norm(model.fc)
    nn.utils.parametrizations.weight_norm(model.layer1[0].conv1)
    importlib.import_module("torch.nn.utils.prune").l1_unstructured(model.layer2[0].conv1, "weight", 0.3)
    return supervised(model, images())


@training("torchvision's create_feature_extractor (torch.fx)")
def _traced() -> Training:
    extractor = package("torchvision.models.feature_extraction").create_feature_extractor

    class Head(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = extractor(resnet(), {"layer2": "a", "layer4": "b"}), nn.Linear(640, 4)

        def forward(self, x: Any) -> Any:
            found = self.body(x)
            return self.head(torch.cat([found["a"].mean((2, 3)), found["b"].mean((2, 3))], 1))

    return supervised(Head(), images())


@training("torch.func.functional_call")
def _functional() -> Training:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    data = images(16)
    return supervised(model, data, call=lambda m, x: torch.func.functional_call(m, dict(m.named_parameters()), (x,)))


# --- two views, two networks ----------------------------------------------------------------------------------


@training("BYOL with a momentum encoder")
def _byol() -> Training:
    class BYOL(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.online, self.predictor = resnet(32), nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32))
            self.target = copy.deepcopy(self.online).requires_grad_(False)

        def forward(self, a: Any, b: Any) -> Any:
            p, q = self.predictor(self.online(a)), self.predictor(self.online(b))
            with torch.no_grad():
                t, u = self.target(a), self.target(b)
            return 2 - F.cosine_similarity(p, u).mean() - F.cosine_similarity(q, t).mean()

    model, data = BYOL(), views()
    made = loop(model, torch.optim.Adam(model.parameters(), 1e-3), lambda: (model(*(x := next(data))), x, None))
    inner = made.step

    def step(i: int) -> Any:
        found = inner(i)
        with torch.no_grad():
            for p, q in zip(model.online.parameters(), model.target.parameters(), strict=True):
                q.mul_(0.9).add_(0.1 * p)
        return found

    made.step = step
    return made


@training("MoCo, whose forward pass updates the key encoder and a queue")
def _moco() -> Training:
    class MoCo(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.encoder_q, self.encoder_k = resnet(16), resnet(16).requires_grad_(False)
            self.register_buffer("queue", F.normalize(torch.randn(16, 32), dim=0))
            self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

        def forward(self, im_q: Any, im_k: Any) -> Any:
            q = F.normalize(self.encoder_q(im_q), dim=1)
            with torch.no_grad():
                for p, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
                    k.data = k.data * 0.9 + p.data * 0.1
                order = torch.randperm(len(im_k))
                keys = F.normalize(self.encoder_k(im_k[order]), dim=1)[order.argsort()]
            logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ self.queue.clone()], 1) / 0.07
            at = int(self.queue_ptr)
            self.queue[:, at : at + len(keys)] = keys.T
            self.queue_ptr[0] = (at + len(keys)) % 32
            return logits, torch.zeros(len(logits), dtype=torch.long)

    model, data = MoCo(), views()

    def batch() -> Any:
        a, b = next(data)
        return CE(*model(im_q=a, im_k=b)), {"im_q": a, "im_k": b}, None

    optimizer = torch.optim.SGD(model.encoder_q.parameters(), 0.03, momentum=0.9)
    return loop(model, optimizer, batch, loss=lambda out, _: CE(*out))


@training("DCGAN, the generator is recorded")
def _dcgan() -> Training:
    up, down = functools.partial(nn.ConvTranspose2d, bias=False), functools.partial(nn.Conv2d, bias=False)
    first = [up(8, 32, 4), nn.BatchNorm2d(32), nn.ReLU(True)]
    generator = nn.Sequential(*first, up(32, 16, 4, 2, 1), nn.BatchNorm2d(16), nn.ReLU(True), up(16, 3, 4, 2, 1))
    critic = nn.Sequential(
        *(down(3, 16, 4, 2, 1), nn.LeakyReLU(0.2, True), down(16, 32, 4, 2, 1), nn.BatchNorm2d(32)),
        *(nn.LeakyReLU(0.2, True), down(32, 1, 4), nn.Flatten(0)),
    )
    loss, data = nn.BCEWithLogitsLoss(), images(16)
    optimizer, other = (torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999)) for n in (generator, critic))

    def batch() -> Any:
        real, _ = next(data)
        noise, one = torch.randn(len(real), 8, 1, 1), torch.ones(len(real))
        other.zero_grad()
        fake = generator(noise)
        (loss(critic(real), one) + loss(critic(fake.detach()), 0 * one)).backward()
        other.step()
        return loss(critic(fake), one), noise, one

    made = loop(generator, optimizer, batch, loss=lambda fake, one: loss(critic(fake), one))
    made.also = (critic, other)
    return made


@training("lightly SimSiam, forward= of two views")
def _lightly() -> Training:
    modules, criterion = package("lightly.models.modules"), package("lightly.loss").NegativeCosineSimilarity()

    class SimSiam(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(*list(resnet().children())[:-1])
            self.projection = modules.SimSiamProjectionHead(512, 32, 32)
            self.prediction = modules.SimSiamPredictionHead(32, 16, 32)

        def forward(self, x: Any) -> Any:
            z = self.projection(self.backbone(x).flatten(start_dim=1))
            return z.detach(), self.prediction(z)

    def both(model: Any, x: Any) -> Any:
        (z, p), (w, q) = model(x[0]), model(x[1])
        return 0.5 * (criterion(w, p) + criterion(z, q))

    model, data = SimSiam(), views()
    optimizer = torch.optim.SGD(model.parameters(), 0.06)
    return loop(model, optimizer, lambda: (both(model, x := next(data)), x, None), forward=both)


@training("byol_pytorch: hooks, a projector that the first call makes")
def _byol_pytorch() -> Training:
    made = package("byol_pytorch").BYOL
    model = made(resnet(), image_size=24, hidden_layer="avgpool", projection_size=16, projection_hidden_size=32)
    data = images()
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    found = loop(model, optimizer, lambda: (model(x := next(data)[0]), x, None))
    inner = found.step

    def step(i: int) -> Any:
        result = inner(i)
        model.update_moving_average()
        return result

    found.step = step
    return found


# --- timm ---------------------------------------------------------------------------------------------------


@training("timm resnet10t: drop path, Mixup, ModelEmaV2 and V3, adaptive clipping, lookahead, cosine schedule")
def _timm() -> Training:
    timm, optim, utils = package("timm"), package("timm.optim"), package("timm.utils")
    model = timm.create_model("resnet10t", num_classes=4, drop_path_rate=0.2, drop_rate=0.1)
    emas = utils.ModelEmaV2(model, 0.9), utils.ModelEmaV3(model, 0.9, use_warmup=True)
    optimizer = optim.create_optimizer_v2(model, "lookahead_adamw", lr=1e-3)
    schedule = package("timm.scheduler").CosineLRScheduler(optimizer, 10)
    mix = package("timm.data").Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=4)

    def after(i: int) -> None:
        utils.adaptive_clip_grad(model.parameters())
        emas[0].update(model)
        emas[1].update(model, step=i)
        schedule.step(i)

    loss = package("timm.loss").SoftTargetCrossEntropy()
    return supervised(model, (mix(x, y) for x, y in images()), loss, optimizer, after=after, also=(*emas, schedule))


@training("timm resnet10t, gradient checkpoints")
def _timm_checkpoint() -> Training:
    model = package("timm").create_model("resnet10t", num_classes=4)
    model.set_grad_checkpointing(True)
    return supervised(model, images())


@training("timm resnet10t, frozen stem")
def _timm_frozen() -> Training:
    model = package("timm").create_model("resnet10t", num_classes=4)
    package("timm.utils").freeze(model, ["conv1", "bn1", "layer1"])
    return supervised(model, images())


TIMM: dict[str, dict[str, Any]] = {
    "mobilenetv4_conv_small_050": {},
    "levit_128s": {"img_size": 64},
    "repvgg_a0": {},
}
for _name, _options in TIMM.items():

    @training(f"timm {_name}")
    def _timm_model(name: str = _name, options: Any = _options) -> Training:
        model = package("timm").create_model(name, num_classes=4, **options)
        return supervised(
            model, images(64), optimizer=package("timm.optim").create_optimizer_v2(model, "adamw", lr=1e-3)
        )


# --- transformers ---------------------------------------------------------------------------------------------


def hugging(kind: str, data: Iterator[Any], key: str = "pixel_values", **config: Any) -> Training:
    """A model of Transformers, which computes its loss itself."""
    transformers = package("transformers")
    model_class = getattr(transformers, kind)
    model = model_class(model_class.config_class(**config))

    def batch() -> Any:
        x, y = next(data)
        return model(**(given := {key: x, "labels": y})).loss, given, None

    return loop(model, torch.optim.AdamW(model.parameters(), 1e-3), batch)


TWO = {"hidden_sizes": [8, 16], "depths": [1, 1]}
THREE = {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_labels": 4}
HUGGING: dict[str, dict[str, Any]] = {
    "ResNet": {"embedding_size": 8, **TWO, "num_labels": 4, "layer_type": "basic"},
    "RegNet": {"embedding_size": 8, **TWO, "num_labels": 4, "groups_width": 8},
    "MobileViT": {**THREE, "neck_hidden_sizes": [8, 8, 12, 16, 24, 32, 48]},
    "Levit": {**THREE, "num_attention_heads": [2, 3, 4], "key_dim": [8, 8, 8], "depths": [1, 1, 1]},
    "MobileNetV2": {"image_size": 64, "depth_multiplier": 0.35, "num_labels": 4},
    "EfficientNet": {
        "image_size": 64,
        "width_coefficient": 0.3,
        "depth_coefficient": 0.3,
        "hidden_dim": 384,
        "num_labels": 4,
    },
}
for _name, _options in HUGGING.items():

    @training(f"transformers {_name}")
    def _hugging(name: str = _name, options: Any = _options) -> Training:
        return hugging(f"{name}ForImageClassification", images(64), **options)


@training("transformers SegFormer")
def _segformer() -> Training:
    sizes: dict[str, Any] = {
        "hidden_sizes": [8, 16, 24, 32],
        "depths": [1, 1, 1, 1],
        "num_attention_heads": [1, 1, 1, 2],
    }
    return hugging("SegformerForSemanticSegmentation", masks(), **sizes, decoder_hidden_size=16, num_labels=2)


@training("transformers Wav2Vec2-Conformer: CTC, SpecAugment by NumPy, layer drop")
def _wav2vec() -> Training:
    rng = np.random.default_rng(0)

    def data() -> Iterator[Any]:
        while True:
            sound = torch.tensor(rng.normal(size=(4, 4000)), dtype=torch.float32)
            yield sound, torch.tensor(rng.integers(1, 8, (4, 5)))

    return hugging(
        "Wav2Vec2ConformerForCTC",
        data(),
        "input_values",
        **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
        **{"conv_dim": (8, 8, 8), "conv_stride": (5, 4, 4), "conv_kernel": (10, 4, 4), "num_feat_extract_layers": 3},
        **{"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "vocab_size": 8, "layerdrop": 0.2},
        **{"mask_time_prob": 0.3, "mask_time_length": 3, "ctc_zero_infinity": True, "ctc_loss_reduction": "mean"},
    )


# --- others -------------------------------------------------------------------------------------------------


@training("segmentation_models_pytorch Unet, DiceLoss")
def _unet() -> Training:
    smp = package("segmentation_models_pytorch")
    model = smp.Unet("resnet18", encoder_weights=None, classes=1)
    return supervised(model, ((x, y[:, None].float()) for x, y in masks()), smp.losses.DiceLoss("binary"))


@training("segmentation_models_pytorch DeepLabV3Plus on timm, auxiliary classifier")
def _smp_deeplab() -> Training:
    made = package("segmentation_models_pytorch").DeepLabV3Plus
    model = made("tu-mobilenetv3_small_050", encoder_weights=None, classes=2, aux_params={"classes": 2})
    return supervised(model, masks(64), lambda out, y: CE(out[0], y))


for _meta in (False, True):

    @training(f"monai UNet, DiceCELoss{', MetaTensor' * _meta}")
    def _monai(meta: bool = _meta) -> Training:
        kind = package("monai.data").MetaTensor if meta else torch.as_tensor
        model = package("monai.networks.nets").UNet(2, 3, 2, (8, 16, 32), (2, 2), num_res_units=2, norm="batch")
        loss = package("monai.losses").DiceCELoss(to_onehot_y=True, softmax=True)
        return supervised(model, ((kind(x), kind(y[:, None])) for x, y in masks()), loss)


@training("kornia augmentation in the model, which keeps its last parameters")
def _kornia() -> Training:
    kornia = package("kornia.augmentation")
    augment = kornia.AugmentationSequential(
        kornia.RandomHorizontalFlip(), kornia.RandomAffine(10.0), data_keys=["input"]
    )
    return supervised(nn.Sequential(augment, resnet()), images())


@training("torch_geometric GCN, a Data object is the batch")
def _gcn() -> Training:
    data, layers, rng = package("torch_geometric.data"), package("torch_geometric.nn"), np.random.default_rng(0)
    rows = labelled(8, size=40)

    class GCN(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = layers.GCNConv(8, 16), layers.BatchNorm(16), layers.GCNConv(16, 4)

        def forward(self, data: Any) -> Any:
            x = F.relu(self.norm(self.a(data.x, data.edge_index)))
            return self.b(F.dropout(x, training=self.training), data.edge_index)

    model = GCN()

    def batch() -> Any:
        x, y = next(rows)
        graph = data.Data(x=x, edge_index=torch.tensor(rng.integers(0, 40, (2, 120))), y=y)
        return CE(model(graph), graph.y), graph, graph.y

    return loop(model, torch.optim.Adam(model.parameters(), 0.01), batch, loss=CE)


@training("torch_geometric GIN, one graph, a mask in the loss")
def _gin() -> Training:
    model = package("torch_geometric.nn.models").GIN(8, 16, 2, 4, norm="batch_norm", dropout=0.1)
    rng = np.random.default_rng(0)
    x, y = next(labelled(8, size=40))
    edges, mask = torch.tensor(rng.integers(0, 40, (2, 120))), torch.tensor(rng.random(40) < 0.7)

    def loss(out: Any, y: Any) -> Any:
        return CE(out[mask], y[mask])

    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    return loop(model, optimizer, lambda: (loss(model(x, edges), y), (x, edges), y), loss=loss)


@training("ultralytics YOLOv8n, model(batch) is the loss")
def _yolo() -> Training:
    model = package("ultralytics.nn.tasks").DetectionModel("yolov8n.yaml", ch=3, nc=2, verbose=False)
    model.args = package("ultralytics.cfg").get_cfg()
    rng = np.random.default_rng(0)

    def batch() -> Any:
        given = {
            "img": torch.tensor(rng.random((2, 3, 64, 64)), dtype=torch.float32),
            "cls": torch.tensor([[0.0], [1.0]]),
            "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.4, 0.4, 0.2, 0.3]]),
            "batch_idx": torch.tensor([0.0, 1.0]),
        }
        return model(given)[0].sum(), given, None

    return loop(model, torch.optim.SGD(model.parameters(), 0.001), batch, loss=lambda out, _: out[0].sum())


@training("conformer (lucidrains)")
def _conformer() -> Training:
    made = package("conformer").Conformer

    class Speech(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = made(dim=16, depth=2, dim_head=8, heads=2, conv_dropout=0.1), nn.Linear(16, 4)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x).mean(1))

    return supervised(Speech(), labelled(20, 16))


@training("pytorch_tabnet: ghost BatchNorm, a layer that is not used")
def _tabnet() -> Training:
    made = package("pytorch_tabnet.tab_network").TabNet
    model = made(8, 4, n_d=4, n_a=4, n_steps=2, virtual_batch_size=8, group_attention_matrix=torch.eye(8))
    return supervised(model, labelled(8, size=32), lambda out, y: CE(out[0], y) - 1e-3 * out[1])


@training("spikingjelly: neurons with a potential, which is reset after each step")
def _spiking() -> Training:
    layer, neuron, functional = (
        package(f"spikingjelly.activation_based.{n}") for n in ("layer", "neuron", "functional")
    )
    body = [layer.Conv2d(3, 8, 3), layer.BatchNorm2d(8), neuron.IFNode(), layer.MaxPool2d(4), layer.Flatten()]
    model = nn.Sequential(*body, layer.Linear(200, 4), neuron.LIFNode())
    functional.set_step_mode(model, "m")
    reset = functional.reset_net
    return supervised(
        model, images(), call=lambda m, x: m(x.repeat(3, 1, 1, 1, 1)).mean(0), after=lambda i: reset(model)
    )


@training("open_clip, a ResNet tower")
def _clip() -> Training:
    clip, rng = package("open_clip"), np.random.default_rng(0)
    vision = clip.CLIPVisionCfg(layers=(1, 1, 1, 1), width=16, image_size=64, head_width=16)
    text = clip.CLIPTextCfg(context_length=8, vocab_size=32, width=16, heads=2, layers=1)
    model, loss = clip.CLIP(embed_dim=16, vision_cfg=vision, text_cfg=text), package("open_clip.loss").ClipLoss()

    def batch() -> Any:
        pictures = torch.tensor(rng.normal(size=(8, 3, 64, 64)), dtype=torch.float32)
        x = pictures, torch.tensor(rng.integers(0, 32, (8, 8)))
        return loss(*model(*x)), x, None

    return loop(model, torch.optim.AdamW(model.parameters(), 1e-3), batch, loss=lambda out, _: loss(*out))


@training("e3nn, its BatchNorm beside PyTorch's")
def _e3nn() -> Training:
    own, linear = package("e3nn.nn").BatchNorm("16x0e"), package("e3nn.o3").Linear("8x0e", "16x0e")
    return supervised(nn.Sequential(linear, own, nn.BatchNorm1d(16), nn.Linear(16, 4)), labelled(8, size=32))


@training("nflows, a flow whose loss is its likelihood")
def _nflows() -> Training:
    transforms = package("nflows.transforms")
    affine = functools.partial(transforms.MaskedAffineAutoregressiveTransform, 4, 8, use_batch_norm=True)
    chain = transforms.CompositeTransform([affine(), transforms.BatchNorm(4), affine()])
    model = package("nflows.flows").Flow(chain, package("nflows.distributions").StandardNormal([4]))
    data = labelled(4, size=32)

    def call(model: Any, x: Any) -> Any:
        return -model.log_prob(x).mean()

    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return loop(model, optimizer, lambda: (call(model, x := next(data)[0]), x, None), forward=call)


@training("a LightningModule in a plain loop, torchmetrics")
def _lightning() -> Training:
    metrics = package("torchmetrics")

    class Lit(package("lightning").LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = resnet()

        def forward(self, x: Any) -> Any:
            return self.net(x)

    made = supervised(Lit(), images())
    made.options["metrics"] = {"auc": metrics.AUROC("multiclass", num_classes=4)}
    return made
