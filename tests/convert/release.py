"""The release's networks written anew, in NumPy and float64, under the release's own names.

Nothing here shares code with the package: names and shapes are asked for where a layer is used,
and a tensor comes into being when it is asked for first. So what a network was made of is the
release's `state_dict`, in the order of use. Images are (N, C, H, W).
"""

import numpy as np

EPSILON = 1e-5

OPERATIONS = (
    "none", "max_pool_3x3", "avg_pool_3x3", "skip_connect",
    "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5",
)  # fmt: skip


class Tensors:
    """Named float32 tensors with random values, made when they are first asked for.

    Attributes:
      values: by name.
      train: whether batch norms use the batch's statistics, or the running ones.
    """

    def __init__(self, seed: int, train: bool = True) -> None:
        self.values: dict[str, np.ndarray] = {}
        self.train = train
        self._rng = np.random.default_rng(seed)

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        if name not in self.values:
            if name.endswith("num_batches_tracked"):
                self.values[name] = np.asarray(7, np.int64)
            elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
                self.values[name] = self._rng.uniform(0.5, 1.5, shape).astype(np.float32)
            else:
                scale = 0.2 if len(shape) < 2 else np.prod(shape[1:]) ** -0.5
                self.values[name] = (scale * self._rng.standard_normal(shape)).astype(np.float32)
        assert self.values[name].shape == shape, name
        return self.values[name].astype(np.float64)


def relu(x):
    return np.maximum(x, 0.0)


def windows(x, kernel, stride, padding, dilation, fill):
    """(N, C, H', W', kh, kw): what every place of the window sees."""
    (kh, kw), (sh, sw), (ph, pw) = kernel, stride, padding
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    span = (dilation * (kh - 1) + 1, dilation * (kw - 1) + 1)
    view = np.lib.stride_tricks.sliding_window_view(x, span, axis=(2, 3))
    return view[:, :, ::sh, ::sw, ::dilation, ::dilation]


def conv(w, name, x, out, kernel=1, stride=1, padding=0, dilation=1, groups=1, bias=False):
    kernel, stride, padding = (
        value if isinstance(value, tuple) else (value, value) for value in (kernel, stride, padding)
    )
    weight = w(f"{name}.weight", out, x.shape[1] // groups, *kernel)
    seen = windows(x, kernel, stride, padding, dilation, 0.0)
    if groups == 1:
        y = np.einsum("nchwij,ocij->nohw", seen, weight, optimize=True)
    else:
        assert groups == out == x.shape[1]
        y = np.einsum("nchwij,cij->nchw", seen, weight[:, 0], optimize=True)
    return y + w(f"{name}.bias", out)[:, None, None] if bias else y


def norm(w, name, x, affine=True):
    size = x.shape[1]
    scale = w(f"{name}.weight", size) if affine else np.ones(size)
    shift = w(f"{name}.bias", size) if affine else np.zeros(size)
    mean, var = w(f"{name}.running_mean", size), w(f"{name}.running_var", size)
    w(f"{name}.num_batches_tracked")
    if w.train:
        mean, var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
    scale = scale / np.sqrt(var + EPSILON)
    return x * scale[:, None, None] + (shift - mean * scale)[:, None, None]


def linear(w, name, x, out):
    return x @ w(f"{name}.weight", out, x.shape[1]).T + w(f"{name}.bias", out)


def pool(x, kind, kernel, stride, padding):
    seen = windows(x, (kernel,) * 2, (stride,) * 2, (padding,) * 2, 1, np.nan)
    return (np.nanmax if kind == "max" else np.nanmean)(seen, axis=(4, 5))


def relu_conv_norm(w, name, x, out, affine):
    return norm(w, f"{name}.op.2", conv(w, f"{name}.op.1", relu(x), out), affine)


def factorized(w, name, x, out, affine):
    x = relu(x)
    shifted = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))[:, :, 1:, 1:]
    halves = [
        conv(w, f"{name}.conv_1", x, out // 2, stride=2),
        conv(w, f"{name}.conv_2", shifted, out // 2, stride=2),
    ]
    return norm(w, f"{name}.bn", np.concatenate(halves, axis=1), affine)


def separable(w, name, first, x, kernel, stride, dilation, affine):
    """ReLU, depthwise, pointwise, BN; `first` is the number of the depthwise convolution."""
    channels, padding = x.shape[1], dilation * (kernel // 2)
    depthwise = f"{name}.op.{first}"
    x = conv(w, depthwise, relu(x), channels, kernel, stride, padding, dilation, groups=channels)
    x = conv(w, f"{name}.op.{first + 1}", x, channels)
    return norm(w, f"{name}.op.{first + 2}", x, affine)


def operation(w, name, kind, x, stride, affine=True):
    channels, size = x.shape[1], int(kind[-1]) if kind[-1].isdigit() else 0
    match kind.rsplit("_", 1)[0]:
        case "skip":
            return x if stride == 1 else factorized(w, name, x, channels, affine)
        case "max_pool" | "avg_pool":
            return pool(x, kind[:3], size, stride, 0 if size == 2 else size // 2)
        case "sep_conv":
            x = separable(w, name, 1, x, size, stride, 1, affine)
            return separable(w, name, 5, x, size, 1, 1, affine)
        case "dil_conv":
            return separable(w, name, 1, x, size, stride, 2, affine)
        case "dil_sep_conv":
            x = separable(w, name, 1, x, size, stride, 2, affine)
            return separable(w, name, 5, x, size, 1, 2, affine)
        case "conv" if kind in ("conv_1x1", "conv_3x3"):
            x = conv(w, f"{name}.1", relu(x), channels, size, stride, size // 2)
            return norm(w, f"{name}.2", x)
        case "conv_3x1" | "conv_7x1":
            x = conv(w, f"{name}.1", relu(x), channels, (1, size), (1, stride), (0, size // 2))
            x = conv(w, f"{name}.2", x, channels, (size, 1), (stride, 1), (size // 2, 0))
            return norm(w, f"{name}.3", x)
    assert kind == "none", kind
    return np.zeros_like(x[:, :, ::stride, ::stride])


def stem(w, x, width, cifar):
    """The two inputs of the first cell."""
    if cifar:
        x = norm(w, "net_.stem.1", conv(w, "net_.stem.0", x, 3 * width, 3, 1, 1))
        return x, x
    x = norm(w, "net_.stem0.1", conv(w, "net_.stem0.0", x, width // 2, 3, 2, 1))
    first = norm(w, "net_.stem0.4", conv(w, "net_.stem0.3", relu(x), width, 3, 2, 1))
    second = conv(w, "net_.stem1.1", relu(first), width, 3, 2, 1)
    return first, norm(w, "net_.stem1.2", second)


def inputs_of(w, name, inputs, channels, halved, affine):
    first = factorized if halved else relu_conv_norm
    return [
        first(w, f"{name}.preprocess0", inputs[0], channels, affine),
        relu_conv_norm(w, f"{name}.preprocess1", inputs[1], channels, affine),
    ]


def cells(width, depth, cifar, once):
    """(channels, reduction, whether input 0 is twice as large) of every cell."""
    halved = not cifar
    for index in range(depth):
        reduction = index == depth // 3 or (index == 2 * depth // 3 and not once)
        width *= 2 if reduction else 1
        yield width, reduction, halved
        halved = reduction


def supernet(w, x, *, width, depth, nodes, cifar, task="cls", alphas=None, **head):
    """The logits of a supernet; its alphas are among the tensors unless others are given."""
    rows = nodes * (nodes + 3) // 2
    own = {kind: w(f"net_.alphas_{kind}", rows, 8) for kind in ("normal", "reduce")}
    shares = {}
    for kind, value in (alphas or own).items():
        shares[kind] = np.exp(value) / np.exp(value).sum(axis=1, keepdims=True)
    states, size = stem(w, x, width, cifar), x.shape[2:]
    for index, (channels, reduction, halved) in enumerate(
        cells(width, depth, cifar, task == "seg")
    ):
        name = f"net_.cells.{index}"
        nodes_here = inputs_of(w, name, states, channels, halved, affine=False)
        edge = 0
        for _ in range(nodes):
            total = 0.0
            for source, state in enumerate(nodes_here):
                share = shares["reduce" if reduction else "normal"][edge]
                stride = 2 if reduction and source < 2 else 1
                for number, kind in enumerate(OPERATIONS):
                    module = f"{name}._ops.{edge}._ops.{number}"
                    y = operation(w, module, kind, state, stride, affine=False)
                    if "pool" in kind:
                        y = norm(w, f"{module}.1", y, affine=False)
                    total = total + share[number] * y
                edge += 1
            nodes_here = [*nodes_here, total]
        states = (states[1], np.concatenate(nodes_here[2:], axis=1))
    return classifier(w, "net_.classifier.classifier", states[1], size, task, **head)


def darts(w, x, *, genotype, width, depth, cifar, task="cls", auxiliary=False, **head):
    """The logits of a discrete network and of its auxiliary head (None: it has none)."""
    states, size, extra = stem(w, x, width, cifar), x.shape[2:], None
    for index, (channels, reduction, halved) in enumerate(
        cells(width, depth, cifar, task == "seg")
    ):
        name = f"net_.cells.{index}"
        pairs = genotype["reduce" if reduction else "normal"]
        concat = genotype["reduce_concat" if reduction else "normal_concat"]
        nodes = inputs_of(w, name, states, channels, halved, affine=True)
        outputs = []
        for k, (kind, source) in enumerate(pairs):
            stride = 2 if reduction and source < 2 else 1
            outputs.append(operation(w, f"{name}._ops.{k}", kind, nodes[source], stride))
            if k % 2:
                nodes.append(outputs[-2] + outputs[-1])
        states = (states[1], np.concatenate([nodes[k] for k in concat], axis=1))
        if auxiliary and index == 2 * depth // 3:
            extra = auxiliary_head(w, states[1], head["classes"], cifar)
    return classifier(w, "net_.classifier.classifier", states[1], size, task, **head), extra


def auxiliary_head(w, x, classes, cifar):
    name = "net_.auxiliary_head"
    x = pool(relu(x), "avg", 5, 3 if cifar else 2, 0)
    x = norm(w, f"{name}.features.3", conv(w, f"{name}.features.2", x, 128))
    x = conv(w, f"{name}.features.5", relu(x), 768, 2)
    if cifar:
        x = norm(w, f"{name}.features.6", x)
    assert x.shape[2:] == (1, 1)
    return linear(w, f"{name}.classifier", relu(x)[:, :, 0, 0], classes)


def upsampled(x, size):
    """Bilinear interpolation with aligned corners."""
    for axis, target in ((2, size[0]), (3, size[1])):
        places = np.linspace(0, x.shape[axis] - 1, target)
        below = np.minimum(places.astype(int), max(x.shape[axis] - 2, 0))
        above = np.minimum(below + 1, x.shape[axis] - 1)
        share = (places - below).reshape([-1 if a == axis else 1 for a in range(4)])
        x = (1 - share) * np.take(x, below, axis) + share * np.take(x, above, axis)
    return x


def classifier(w, name, x, size, task, *, classes, tiles=1, channels=0, rates=()):
    """The task's last layers."""
    if task == "col":
        return upsampled(conv(w, name, x, classes, bias=True), size)
    if task == "seg":
        return upsampled(aspp(w, name, x, classes, channels, rates), size)
    pooled = x.mean(axis=(2, 3)).reshape(-1, tiles * x.shape[1])
    return linear(w, name, pooled, classes)


def aspp(w, name, x, classes, channels, rates):
    def branch(number, x, kernel=1, rate=1):
        padding = rate if kernel == 3 else 0
        x = conv(w, f"{name}.aspp{number}.0", x, channels, kernel, 1, padding, rate)
        return relu(norm(w, f"{name}.aspp{number}.1", x))

    branches = [branch(1, x)]
    branches += [branch(2 + k, x, 3, rate) for k, rate in enumerate(rates)]
    image = branch(5, x.mean(axis=(2, 3), keepdims=True))
    x = np.concatenate([*branches, np.broadcast_to(image, branches[0].shape)], axis=1)
    x = relu(norm(w, f"{name}.classifier.1", conv(w, f"{name}.classifier.0", x, channels)))
    return conv(w, f"{name}.classifier.3", x, classes, bias=True)


def nasbench101(w, x, *, matrix, operations, channels, width, stacks, modules, cifar, classes,
                task="cls", tiles=1):  # fmt: skip
    """The logits of a NAS-Bench-101 network.

    `channels` are a cell's channels at its vertices, given for outputs of 1, 2, 4, ... times
    `width`, input and output left out.
    """

    def layer(name, x, out, kernel=1, stride=1):
        x = conv(w, f"{name}.conv_bn_relu.0", x, out, kernel, stride, kernel // 2)
        return relu(norm(w, f"{name}.conv_bn_relu.1", x))

    size = x.shape[2:]
    if cifar:
        x = layer("stem.conv3x3", x, width, 3)
    else:
        for k, out in enumerate((width // 2, width, width)):
            x = layer(f"stem.{k}", x, out, 3, 2)
    number, last = 0, len(matrix) - 1
    for stack in range(stacks):
        if stack:
            height, breadth = (2 * (side // 2) for side in x.shape[2:])
            x = pool(x[:, :, :height, :breadth], "max", 2, 2, 0)
            number += 1
        for _ in range(modules):
            name, at = f"layers.{number}", channels[stack]
            values = [x]
            for vertex in range(1, last):
                out = at[vertex - 1]
                total = sum(values[k][:, :out] for k in range(1, vertex) if matrix[k][vertex])
                if matrix[0][vertex]:
                    total = total + layer(f"{name}.input_op.{vertex}.conv1x1", x, out)
                kind = operations[vertex]
                if kind == "maxpool3x3":
                    values.append(pool(total, "max", 3, 1, 1))
                else:
                    module = f"{name}.vertex_op.{vertex}.{kind}"
                    values.append(layer(module, total, out, int(kind[-1])))
            output = np.concatenate([values[k] for k in range(1, last) if matrix[k][last]], axis=1)
            if matrix[0][last]:
                output = output + layer(f"{name}.input_op.{last}.conv1x1", x, output.shape[1])
            x = output
            number += 1
    return classifier(w, "classifier.classifier", x, size, task, classes=classes, tiles=tiles)
