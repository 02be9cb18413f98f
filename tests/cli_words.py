"""What people type who come from other projects, and what the one line of the answer must hold."""

GIVE = [  # (a command line, parts of the answer)
    # ultralytics
    ("train pets --imgsz 640", ["'--imgsz' is not an option here: give --size 640."]),
    (
        "train pets --lr0 0.01 --lrf 0.1",
        ["--lr 0.01 --schedule.min_lr RATE", "--schedule.min_lr is the rate at the end"],
    ),
    ("train --data pets.yaml --epochs 3", ["'--data'", "The data come first", "`convnext train pets.yaml`"]),
    ("train pets --project runs --name first", ["give --out runs/first."]),
    ("train pets --name first", ["give --out first.", "--out names the whole folder"]),
    ("train pets --cos_lr", ["give --schedule.kind cosine."]),
    ("train pets --device 0", ["'--device 0' is not an option here: give --device cuda:0."]),
    ("train pets --device 0,1", ["give --device cuda.", "torchrun"]),
    ("train pets --pretrained", ["give --weights FILE.", "hub:OWNER/NAME"]),
    ("train pets --fliplr 0.5 --optimizer SGD", ["give --augment.hflip 0.5 --optim.name sgd."]),
    ("train data=pets model=yolo11n.pt epochs=3", ["give --weights yolo11n.pt --epochs 3.", "`convnext train pets`"]),
    ("predict run a.jpg --conf 0.4", ["give --score 0.4."]),
    ("predict model=run source=a.jpg", ["The run or checkpoint comes first", "`convnext predict RUN a.jpg`"]),
    ("export run --format onnx --imgsz 640", ["give --to onnx.", "'--imgsz' follows from the run"]),
    ("detect train data=pets", ["'detect' is no command here: `convnext train`", "the task follows from the data"]),
    ("val run pets", ["it is `convnext evaluate`"]),
    # timm
    ("train pets -b 64 --opt AdamW", ["give --batch 64 --optim.name adamw."]),
    ("train pets --sched CosineAnnealingLR --weight-decay 0.05", ["--schedule.kind cosine --optim.weight_decay 0.05"]),
    ("train --data-dir pets --batch-size 8", ["give --batch 8.", "`convnext train pets`"]),
    ("train pets --num-classes 10", ["The classes follow from the data."]),
    ("train pets --initial-checkpoint w.pth", ["give --weights w.pth."]),
    ("train pets --resume runs/a", ["when the same command is given again"]),
    ("train pets --input-size 3 224 224", ["give --size 224."]),
    ("train pets --img-size 96 --aa rand-m9", ["give --size 96 --augment.rand_augment rand-m9."]),
    ("train pets --reprob .25 --smoothing .1", ["give --augment.erasing .25 --augment.smoothing .1."]),
    ("train pets --drop-path 0.1 --model-ema-decay 0.999", ["give --model.drop_path 0.1 --optim.ema 0.999."]),
    ("train pets --amp", ["give --precision bf16."]),
    # torchvision's references
    ("train pets --lr-scheduler cosineannealinglr", ["give --schedule.kind cosine."]),
    ("train pets --lr-warmup-epochs 5 --mixup-alpha .2", ["--schedule.warmup_epochs 5 --augment.mixup .2"]),
    ("train pets --random-erase 0.1 --train-crop-size 176", ["give --augment.erasing 0.1 --size 176."]),
    ("train pets --test-only", ["`convnext evaluate RUN DATA`"]),
    # transformers
    ("train pets --learning_rate=5e-5", ["'--learning_rate' is not an option here: give --lr 5e-5."]),
    ("train pets --per_device_train_batch_size 8", ["give --batch IMAGES.", "over all devices"]),
    ("train pets --num_train_epochs 3 --output_dir out", ["give --epochs 3 --out out."]),
    ("train pets --model_name_or_path facebook/convnext-tiny-224", ["--weights hub:facebook/convnext-tiny-224"]),
    ("train pets --gradient_accumulation_steps 4", ["give --micro-batch IMAGES.", "divided by 4"]),
    # the official code
    ("train --data_path pets --nb_classes 10", ["`convnext train pets`", "The classes follow from the data."]),
    ("train pets --input_size 224 --finetune w.pth", ["give --size 224 --weights w.pth."]),
    ("train pets --update_freq 4", ["give --micro-batch IMAGES.", "divided by 4"]),
    # mmdetection, AutoGluon
    ("train pets --work-dir w --cfg-options optim.lr=1", ["give --out w.", "Every field of a recipe is an option"]),
    # dashes and case
    ("train pets --val_share 0.3", ["give --val-share 0.3."]),
    ("train pets --Epochs 3", ["give --epochs 3."]),
]
