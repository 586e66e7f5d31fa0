"""`params.yaml` as frozen types that forbid unknown keys, and overlays over it.

Every field changes results and so is tracked by DVC; what does not change a result (device,
layers to work on) is a command-line option and has no place here.
"""

from clearnets.config.autointerp import (
    ClientSettings,
    DelphiExplainer,
    DelphiScorer,
    Effects,
    Explain,
    GGUFClient,
    Intervene,
    NonActivating,
    OpenAIClient,
    Overlap,
    Protocol,
    Qualify,
    Score,
    TokensExplainer,
    TrainType,
)
from clearnets.config.browse import Browse
from clearnets.config.choices import (
    layers_in_words,
    parse_choice,
    parse_family,
    parse_layers,
    parse_mlp,
    parse_seed,
    parse_subject,
    parse_task,
)
from clearnets.config.coders import Cache, Coders, Existing
from clearnets.config.data import (
    AnyTokenizer,
    Data,
    HubText,
    LocalText,
    PretrainedTokenizer,
    RestrictedTokenizer,
    SplitTokens,
    Storybook,
    TrainedTokenizer,
)
from clearnets.config.embeddings import Embed, Similarity
from clearnets.config.experiment import Config
from clearnets.config.fields import (
    Count,
    Fraction,
    Frozen,
    Positive,
    Precision,
)
from clearnets.config.files import (
    EXPERIMENTS,
    PARAMS,
    load,
    overlay,
    overlays,
    parse,
    parse_yaml,
    read_yaml,
    value_at,
)
from clearnets.config.generalize import TASKS, CheckpointCoders, Checkpoints, Generalize, Grokking
from clearnets.config.models import (
    GPTNeoX,
    Match,
    Model,
    Pretrained,
    PretrainedSparse,
    Train,
)
from clearnets.config.names import MLPS, SPARSE, SPLITS, Family, Mlp, Split
from clearnets.config.pictures import (
    AnyClassifier,
    ConvNeXtV2,
    Digits,
    HubPictures,
    LocalPictures,
    PictureCurves,
    PictureGrid,
    PictureTraining,
    SparseFeedforward,
    SwinV2,
    ViT,
)
from clearnets.config.results import Collate, Concepts, Planted, Stability
