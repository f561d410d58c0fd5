"""Experiments of chapters 3, 4 and 8. They take longer than a notebook may, so their results are shipped.

- `fusions`: joint training with three fusions, and with a modality missing
- `pretraining`: the gain from pre-training on single modalities
- `translation`: the attributes that a translation loses, with ready-trained models
- `comparison`: the three methods on the same labeled pairs
- `adversarial`: how the adversarial model of modality translation learns
- `saliency`: explanations of trained models beside those of shuffled weights
- `human_speech`: Mandarin of a person, read by models of synthetic speech
- `scaling`: larger networks and more images, with a power law
- `data`: wrong labels, augmentation, missing texts
- `fairness`: the groups of a skewed sample, repairs, and a model card
- `privacy`: a membership test of a captioner
- `protocol`: examples, and training until validation stops improving; `small`: smaller ones of chapter 8;
  `records`: files of results

Each, except for `translation` and the helpers, has `run()`, which measures and writes, and `results()`, which
reads.
"""

from mmkeras._utils import lazy

__getattr__ = lazy.submodules(__name__)
