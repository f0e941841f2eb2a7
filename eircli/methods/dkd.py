"""DKD: decomposed knowledge distillation (Baek et al., NeurIPS 2022, arXiv:2210.05941); with a memory it is DKD-M."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from eircli.common.types import Batch
from eircli.config import methods as method_settings
from eircli.methods.base import Context, Method
from eircli.methods.losses import imitation_bce, new_classes_bce, reasoning_scores
from eircli.model.deeplab import DeepLab, upsample


class Dkd(Method):
    """Binary cross-entropy on the new classes alone; the old ones are distilled, whole and decomposed.

    Channel 0 is the auxiliary classifier: it reads detached features, is trained with all-negative targets, and is what
    the next step's new classifiers start from. After a shared base step it is background's classifier when step 1 starts.
    Stored images are further samples; their pixels serve as negatives of the new classes; their labels of old classes enter
    no loss.

    Losses: `mbce`, binary cross-entropy of the new classes; `ac`, of the auxiliary classifier; `kd`, distillation of the old
    classes' logits; `dkd+` and `dkd-`, of their positive and negative reasoning scores.
    """

    def __init__(self, config: method_settings.DkdSettings, context: Context) -> None:
        self.config, self.context = config, context
        self.positive_weight = config.positive_weight_at(base=context.teacher is None)

    def prepare(self, batch: Batch) -> Batch:
        images, teacher = batch.images.float(), self.context.teacher
        if teacher is None:
            return batch.with_(images=images)
        features = teacher.features(images)
        parts = reasoning_scores(teacher, features, self.context.old)
        return batch.with_(images=images, teacher_logits=teacher.classify(features), teacher_features=parts)

    def losses(self, model: DeepLab, batch: Batch) -> dict[str, Tensor]:
        config, old, mean, size = self.config, self.context.old, self.pixel_mean(batch), batch.labels.shape[1:]
        features = model.features(batch.images)
        logits = upsample(model.classify(features), size)
        losses = {
            "mbce": mean(new_classes_bce(logits[:, 1 + old :], batch.labels, old, self.positive_weight)),
            "ac": config.auxiliary_weight * mean(softplus(logits[:, 0])),
        }
        if batch.teacher_logits is not None:
            theirs = upsample(batch.teacher_logits[:, 1:], size)
            losses["kd"] = config.distill_weight * mean(imitation_bce(logits[:, 1 : 1 + old], theirs))
            pairs = zip(reasoning_scores(model, features, old), batch.teacher_features, strict=True)
            for name, (ours, theirs) in zip(("dkd+", "dkd-"), pairs, strict=True):
                losses[name] = config.decomposed_weight * imitation_bce(ours.float(), theirs.float()).mean()
        return losses
