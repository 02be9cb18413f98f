"""What other projects call an option: their word, ours, and where the two differ.

Their words are those of the option lists of ultralytics, timm's train.py, torchvision's references, transformers'
trainer, the official ConvNeXt code, mmdetection, AutoGluon and fastai. `{}` stands for the value that was given; an
option in capitals after it asks for another value.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Peer(NamedTuple):
    """What one of their words is here."""

    option: str  # with its value; '': there is none
    note: str = ""  # one sentence: how the two differ, or why there is none; 'It' is the option, else their word
    otherwise: str = ""  # the same where a command lacks the option


_DATA = Peer("", "The data come first, without an option: `convnext train {}`.")
_VAL = Peer("", "Held-out images lie in DATA/val beside DATA/train, or --val-share holds some out.")
_SIZE, _OUT, _BATCH, _LR, _EPOCHS = map(Peer, ("--size {}", "--out {}", "--batch {}", "--lr {}", "--epochs {}"))
_WEIGHTS = Peer("--weights {}")
_CLASSES = Peer("", "The classes follow from the data.")
_AGAIN = Peer("", "A run that stopped goes on when the same command is given again.")
_MICRO = Peer("--micro-batch IMAGES", "It is --batch, which counts all images of a step, divided by {}.")
_PATIENCE = Peer("--schedule.patience {}", "", "A run goes to its end and keeps its best weights.")
_KIND = Peer("--schedule.kind {}", "It is cosine, linear or step.")
_OPTIMIZER = Peer("--optim.name {}", "It is adamw, sgd or muon.")
_EMA = Peer("--optim.ema {}")
_HALF = Peer("--precision fp16")
_BF16 = Peer("--precision bf16")
_WORKERS = Peer("--workers {}")
_GPU = Peer("--device cuda", "Several GPUs are for `torchrun --nproc-per-node N -m convnext train ...`.")
_RANKS = Peer("", "Several processes are started by `torchrun --nproc-per-node N -m convnext train ...`.")
_KEPT = Peer("", "The last and the best weights are kept; --checkpoint-minutes says how often the last are saved.")
_LOG = Peer("", "Progress is shown by itself, and metrics.jsonl of the run has every step.")
_BOARD = Peer("--tensorboard")
_NO_BOARD = Peer("--tensorboard", "No other tracker is written.")
_SCORES = Peer("", "Scoring is a command of its own: `convnext evaluate RUN DATA`.")
_BEST = Peer("--metric {}", "It is a figure of the evaluation, e.g. top1, balanced_accuracy, macro_f1, box_ap, miou.")
_RECIPE = Peer("--recipe NAME", "`convnext recipes` lists them.")
_FIELDS = Peer("", "Every field of a recipe is an option of its own, e.g. --optim.lr 1e-3.")
_CLIP = Peer("--optim.clip {}")
_STEP = Peer("--schedule.step_epochs {}", "It counts for --schedule.kind step.")
_FACTOR = Peer("--schedule.step_factor {}", "It counts for --schedule.kind step.")
_JITTER = Peer("--augment.photometric true", "Detection and segmentation have it; it has no strength.")
_MODEL = Peer("--model {}", "`convnext models` lists them.")
_DEPTH = Peer("--model.drop_path {}")
_MINUTES = Peer("--minutes MINUTES", "It counts minutes, not seconds.", "The length of a run is that of --epochs.")
_FREEZE = Peer(
    "--freeze", "It trains the head alone.", "All layers are trained; --optim.layer_decay slows the first ones."
)

TRAIN: dict[str, Peer] = {
    # data
    **dict.fromkeys(("data", "data_dir", "data_path", "dataset", "dataset_name", "train_data", "train_dir", "root"), _DATA),
    **dict.fromkeys(("data_root", "traindir", "source", "data_set", "input_dir", "image_folder"), _DATA),
    **dict.fromkeys(("eval_data_path", "validation_dir", "tuning_data", "val_data", "val_dir", "valdir"), _VAL),
    **dict.fromkeys(("val_split", "validation_split", "valid_pct", "train_val_split", "test_size"), Peer("--val-share {}")),
    **dict.fromkeys(("num_classes", "nb_classes", "nc", "num_labels", "n_classes", "n_out", "class_map"), _CLASSES),
    "problem_type": Peer("--task TASK", "It is classification, detection or segmentation; the data say which."),
    # network and weights
    **dict.fromkeys(("arch", "backbone", "network", "model_name", "encoder"), _MODEL),
    "pretrained": Peer("--weights FILE", "It takes a file, a run or hub:OWNER/NAME; without it a run starts from scratch."),
    **dict.fromkeys(("initial_checkpoint", "finetune", "checkpoint", "ckpt", "load_from", "pretrained_path"), _WEIGHTS),
    **dict.fromkeys(("pretrain", "init_checkpoint", "weights_path", "checkpoint_path", "pretrained_weights"), _WEIGHTS),
    "model_name_or_path": _WEIGHTS,
    **dict.fromkeys(("resume", "resume_from", "resume_from_checkpoint", "auto_resume", "start_epoch"), _AGAIN),
    **dict.fromkeys(("drop_path", "drop_path_rate", "stochastic_depth_prob", "droppath"), _DEPTH),
    "drop_connect": _DEPTH,
    **dict.fromkeys(("drop", "dropout", "drop_rate"), Peer("--model.drop_path {}", "ConvNeXt has drop path, and no dropout.")),
    **dict.fromkeys(("layer_scale_init_value", "ls_init_value"), Peer("--model.layer_scale {}")),
    "head_init_scale": Peer("--model.head_scale {}"),
    **dict.fromkeys(("gradient_checkpointing", "grad_checkpointing", "use_checkpoint"), Peer("--model.checkpointing true")),
    **dict.fromkeys(("in_chans", "in_channels", "ch", "num_channels"), Peer("--channels {}")),
    **dict.fromkeys(("freeze", "freeze_backbone", "linear_probe"), _FREEZE),
    # length and batch
    **dict.fromkeys(("batch_size", "b", "bs", "batchsize", "train_batch_size", "total_batch_size", "ims_per_batch"), _BATCH),
    **dict.fromkeys(
        ("per_device_train_batch_size", "per_gpu_train_batch_size", "samples_per_gpu"),
        Peer("--batch IMAGES", "It counts the images of a step over all devices."),
    ),
    **dict.fromkeys(
        ("per_device_eval_batch_size", "validation_batch_size", "eval_batch_size", "val_batch_size", "vb"),
        Peer("", "Evaluation chooses its own batch."),
    ),
    **dict.fromkeys(("update_freq", "grad_accum_steps", "gradient_accumulation_steps", "accum_iter", "accumulate"), _MICRO),
    **dict.fromkeys(("accumulate_grad_batches", "nbs", "iters_to_accumulate"), _MICRO),
    **dict.fromkeys(("num_train_epochs", "n_epoch", "max_epochs", "num_epochs", "n_epochs", "nepochs", "e"), _EPOCHS),
    **dict.fromkeys(("max_steps", "max_iters", "num_steps", "total_steps", "iters"), Peer("--schedule.steps {}")),
    **dict.fromkeys(("time_limit", "max_time", "time"), _MINUTES),
    **dict.fromkeys(("patience", "early_stopping", "early_stopping_patience"), _PATIENCE),
    # rates
    **dict.fromkeys(("lr0", "learning_rate", "lr_max", "initial_lr", "max_lr", "base_lr"), _LR),
    "blr": Peer("--lr RATE", "It is the rate of the batch as it is: their blr x batch / 256."),
    "lrf": Peer("--schedule.min_lr RATE", "It is the rate at the end itself, not a share of the peak."),
    **dict.fromkeys(("min_lr", "lr_min", "eta_min"), Peer("--schedule.min_lr {}")),
    "cos_lr": Peer("--schedule.kind cosine"),
    **dict.fromkeys(("sched", "scheduler", "lr_scheduler", "lr_scheduler_type", "lr_policy"), _KIND),
    **dict.fromkeys(("warmup_epochs", "lr_warmup_epochs"), Peer("--schedule.warmup_epochs {}")),
    **dict.fromkeys(("warmup_steps", "num_warmup_steps", "warmup_iters"), Peer("--schedule.warmup_steps {}")),
    **dict.fromkeys(
        ("warmup_ratio", "pct_start"),
        Peer("--schedule.warmup_epochs EPOCHS", "It counts epochs, not a share of the run."),
    ),
    **dict.fromkeys(("warmup_lr", "lr_warmup_decay", "warmup_lr_init"), Peer("", "A warm-up starts from 0.")),
    **dict.fromkeys(("decay_epochs", "lr_step_size", "step_size"), _STEP),
    **dict.fromkeys(("decay_rate", "lr_gamma", "gamma"), _FACTOR),
    **dict.fromkeys(("decay_milestones", "lr_steps", "milestones"), Peer("--schedule.milestones {}")),
    **dict.fromkeys(("opt", "optimizer", "optim"), _OPTIMIZER),
    **dict.fromkeys(("weight_decay", "wd"), Peer("--optim.weight_decay {}")),
    **dict.fromkeys(("norm_weight_decay", "bias_weight_decay"), Peer("", "Norms and biases have no weight decay.")),
    "weight_decay_end": Peer("", "Weight decay stays the same for the whole run: --optim.weight_decay."),
    "momentum": Peer("--optim.momentum {}"),
    **dict.fromkeys(("opt_eps", "adam_epsilon"), Peer("--optim.eps {}")),
    "opt_betas": Peer("--optim.betas {}"),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), Peer("--optim.betas 0.9,0.999", "The two go together.")),
    **dict.fromkeys(("clip_grad", "clip_grad_norm", "max_grad_norm", "gradient_clip_val", "clip", "clip_max_norm"), _CLIP),
    "layer_decay": Peer("--optim.layer_decay {}"),
    **dict.fromkeys(("model_ema", "ema", "use_ema"), Peer("--optim.ema 0.9999", "It is the decay of a step; 0 is off.")),
    **dict.fromkeys(("model_ema_decay", "ema_decay"), _EMA),
    **dict.fromkeys(
        ("model_ema_eval", "model_ema_steps", "model_ema_force_cpu", "model_ema_warmup"),
        Peer("", "EMA weights, which --optim.ema asks for, are scored beside the raw ones by themselves."),
    ),
    # what the network sees
    **dict.fromkeys(("imgsz", "img_size", "image_size", "input_size", "img", "train_crop_size", "crop_size"), _SIZE),
    **dict.fromkeys(("resolution", "imgsize", "img_sz", "image_sz", "train_size"), _SIZE),
    **dict.fromkeys(("val_crop_size", "eval_size", "val_size", "test_size_px"), Peer("--input.eval_size_px {}")),
    "crop_pct": Peer("--input.eval_crop {}"),
    "val_resize_size": Peer("--input.eval_crop SHARE", "It is the evaluation size divided by theirs."),
    "mean": Peer("--input.mean {}"),
    "std": Peer("--input.std {}"),
    **dict.fromkeys(("aa", "auto_augment", "autoaugment"), Peer("--augment.rand_augment {}", "It takes timm's texts.")),
    **dict.fromkeys(("reprob", "random_erase", "re_prob", "erasing"), Peer("--augment.erasing {}")),
    **dict.fromkeys(("smoothing", "label_smoothing", "label_smoothing_factor"), Peer("--augment.smoothing {}")),
    **dict.fromkeys(("mixup", "mixup_alpha"), Peer("--augment.mixup {}", "It is alpha of the Beta distribution.")),
    **dict.fromkeys(("cutmix", "cutmix_alpha"), Peer("--augment.cutmix {}", "It is alpha of the Beta distribution.")),
    "mixup_prob": Peer("--augment.mix_prob {}"),
    "mixup_switch_prob": Peer("--augment.mix_switch {}"),
    **dict.fromkeys(("hflip", "fliplr", "hflip_prob"), Peer("--augment.hflip {}")),
    **dict.fromkeys(("vflip", "flipud"), Peer("--augment.vflip {}")),
    **dict.fromkeys(("color_jitter", "colour_jitter", "hsv_h", "hsv_s", "hsv_v"), _JITTER),
    **dict.fromkeys(
        ("mosaic", "close_mosaic", "copy_paste", "degrees", "shear", "perspective", "translate"),
        Peer("", "There is no such augmentation; `convnext recipes small_detection` lists those that there are."),
    ),
    **dict.fromkeys(("conf", "box_score_thresh", "score_thr"), Peer("--head.score {}")),
    **dict.fromkeys(("iou", "nms_thr", "box_nms_thresh"), Peer("--head.nms_iou {}")),
    **dict.fromkeys(("max_det", "max_per_img", "box_detections_per_img"), Peer("--head.most {}")),
    # machine
    **dict.fromkeys(("amp", "use_amp", "bf16", "bfloat16"), _BF16),
    **dict.fromkeys(("fp16", "half"), _HALF),
    **dict.fromkeys(("amp_dtype", "dtype", "mixed_precision"), Peer("--precision {}", "It is fp32, bf16 or fp16.")),
    **dict.fromkeys(("num_workers", "j", "dataloader_num_workers", "nworkers", "workers_per_gpu"), _WORKERS),
    **dict.fromkeys(("gpu", "gpus", "gpu_id", "gpu_ids", "num_gpus", "devices"), _GPU),
    **dict.fromkeys(("launcher", "local_rank", "dist_url", "world_size", "nproc_per_node", "dist_eval", "distributed"), _RANKS),
    **dict.fromkeys(("torch_compile", "torchcompile", "use_compile", "torchscript"), Peer("--compile")),
    "channels_last": Peer("", "Channels-last memory is always used."),
    **dict.fromkeys(("random_state", "random_seed", "manual_seed"), Peer("--seed {}")),
    # what is written
    **dict.fromkeys(("output", "output_dir", "out_dir", "work_dir", "save_dir", "log_dir", "save_path", "outdir"), _OUT),
    **dict.fromkeys(("name", "project", "experiment", "run_name", "exp_name"), Peer("--out {}", "It names the whole folder.")),
    **dict.fromkeys(
        ("exist_ok", "overwrite_output_dir"),
        Peer("", "A folder with a run goes on with it; another --out begins a new one."),
    ),
    **dict.fromkeys(("save_steps", "checkpoint_interval"), Peer("--checkpoint-steps {}")),
    **dict.fromkeys(("save_period", "save_ckpt_freq", "checkpoint_hist", "save_total_limit", "save_strategy", "save"), _KEPT),
    **dict.fromkeys(("log_interval", "print_freq", "logging_steps", "log_freq", "verbose", "logging_dir"), _LOG),
    **dict.fromkeys(("eval_freq", "val_interval", "check_val_every_n_epoch"), Peer("--schedule.eval_epochs {}")),
    **dict.fromkeys(("eval_strategy", "evaluation_strategy", "eval_steps"), Peer("--schedule.eval_epochs EPOCHS")),
    **dict.fromkeys(("report_to", "use_tensorboard"), _BOARD),
    **dict.fromkeys(("wandb", "enable_wandb", "use_wandb", "log_wandb", "wandb_project"), _NO_BOARD),
    **dict.fromkeys(("test_only", "eval", "evaluate", "do_eval", "val_only", "do_predict"), _SCORES),
    "do_train": Peer("", "That is what `convnext train` does."),
    **dict.fromkeys(("metric_for_best_model", "eval_metric", "monitor"), _BEST),
    "load_best_model_at_end": Peer("", "The best weights are kept, and are those that predict; --metric says by which figure."),
    **dict.fromkeys(("push_to_hub", "hub_model_id"), Peer("", "Nothing is uploaded.")),
    **dict.fromkeys(("cfg_options", "options", "overrides", "opts"), _FIELDS),
    **dict.fromkeys(("config", "cfg", "hyp", "config_file", "presets", "hyperparameters"), _RECIPE),
    "mode": Peer("", "The command says what is done: `convnext train`, `evaluate`, `predict` or `export`."),
}  # fmt: skip

_RUN = Peer("", "The run or checkpoint comes first, without an option.")
_IMAGES = Peer("", "The images come after the run, without an option: `convnext predict RUN {}`.")
_OF_RUN = Peer("", "It follows from the run, which knows its preprocessing and its classes.")
_HEAD = Peer("", "It is decided before training, by --head.nms_iou and --head.most.")
_JSON = Peer("--json")
_BY_CPU = Peer("--device cpu")
_USE = {  # of `predict` and `evaluate`
    **dict.fromkeys(("model", "checkpoint", "ckpt", "model_path", "model_name_or_path", "resume", "arch", "run"), _RUN),
    **dict.fromkeys(("pretrained", "initial_checkpoint", "finetune", "config", "cfg"), _RUN),
    **dict.fromkeys(("imgsz", "img_size", "image_size", "input_size", "mean", "std", "crop_pct", "num_classes"), _OF_RUN),
    **dict.fromkeys(("nb_classes", "in_chans", "classes"), _OF_RUN),
    **dict.fromkeys(("batch_size", "b", "bs", "per_device_eval_batch_size", "validation_batch_size"), _BATCH),
    **dict.fromkeys(("num_workers", "j", "dataloader_num_workers"), _WORKERS),
    **dict.fromkeys(("iou", "max_det", "agnostic_nms", "nms_thr"), _HEAD),
    **dict.fromkeys(("gpu", "gpus", "gpu_id", "gpu_ids", "devices", "num_gpus"), Peer("--device cuda")),
    **dict.fromkeys(("cpu", "no_cuda", "use_cpu"), _BY_CPU),
    **dict.fromkeys(("half", "fp16", "amp", "bf16"), Peer("", "The precision is that of the run.")),
    **dict.fromkeys(("output", "output_dir", "out_dir", "save_dir", "show_dir", "project", "name", "work_dir"), _OUT),
    **dict.fromkeys(("tta", "augment", "aug_test"), Peer("--multi-scale", "It is for segmentation.")),
    **dict.fromkeys(("use_ema", "model_ema", "ema"), Peer("--weights ema")),
}  # fmt: skip
PREDICT: dict[str, Peer] = {
    **_USE,
    **dict.fromkeys(("data", "source", "input", "image", "images", "img", "data_dir", "data_path", "folder", "path"), _IMAGES),
    **dict.fromkeys(("conf", "score_thr", "confidence", "box_threshold", "pred_score_thr"), Peer("--score {}")),
    **dict.fromkeys(("topk", "top_k", "k"), Peer("--top {}")),
    **dict.fromkeys(("save", "save_img", "visualize", "show"), Peer("--out DIR", "Drawn images are written there.")),
    **dict.fromkeys(("save_txt", "save_json", "save_conf"), Peer("--json")),
    "save_csv": Peer("--csv"),
    **dict.fromkeys(("stream", "verbose"), Peer("", "An image is answered as soon as it is known.")),
}  # fmt: skip
EVALUATE: dict[str, Peer] = {
    **_USE,
    **dict.fromkeys(
        ("data", "data_dir", "data_path", "dataset", "eval_data_path", "val_dir", "validation_dir", "source"),
        Peer("", "The data come after the run, without an option: `convnext evaluate RUN {}`."),
    ),
    **dict.fromkeys(("split", "subset"), Peer("--part {}")),
    **dict.fromkeys(("save_json", "results_file"), _JSON),
    **dict.fromkeys(("conf", "score_thr"), Peer("", "All detections are scored, as COCO does.")),
    **dict.fromkeys(("eval", "metrics"), Peer("", "All figures of the task are printed.")),
}  # fmt: skip
EXPORT: dict[str, Peer] = {
    **dict.fromkeys(("model", "checkpoint", "ckpt", "run"), _RUN),
    **dict.fromkeys(("format", "include", "target"), Peer("--to {}")),
    **dict.fromkeys(("imgsz", "img_size", "input_size", "image_size"), _OF_RUN),
    **dict.fromkeys(("fp16",), Peer("--half")),
    **dict.fromkeys(("data",), Peer("--int8 {}", "These images calibrate int8.")),
    **dict.fromkeys(
        ("dynamic", "dynamic_axes", "dynamic_batch"), Peer("", "The file takes images of any size, and any number of them.")
    ),
    **dict.fromkeys(("simplify", "opset", "optimize"), Peer("", "It is chosen automatically.")),
    "softmax": Peer("", "The file gives logits and scores."),
    **dict.fromkeys(("output", "file", "output_dir", "name"), _OUT),
}  # fmt: skip
PEERS: Mapping[str, Mapping[str, Peer]] = {"train": TRAIN, "predict": PREDICT, "evaluate": EVALUATE, "export": EXPORT}
VERBS = {  # their verb -> ours
    **dict.fromkeys(("fit", "finetune", "tune", "fine-tune", "learn", "fine_tune"), "train"),
    **dict.fromkeys(("val", "validate", "test", "eval", "score", "benchmark-accuracy"), "evaluate"),
    **dict.fromkeys(("infer", "inference", "detect", "segment", "classify", "run"), "predict"),
}
