"""A recipe is a value: read it, change it, see what the learning rate will be.

python examples/recipe.py
"""

import convnext

recipe = convnext.recipe("imagenet1k", "tiny")
optim, epochs = recipe.optim, recipe.schedule.epochs
print(f"{recipe.name}: {optim.name}, rate {optim.lr:g} for {optim.batch} images, {epochs:g} epochs")

fitted = convnext.recipe("transfer", "atto", images=500, image_px=256, classes=12)
print(f"500 images of 256 px: {fitted.schedule.epochs:g} epochs, batch {fitted.optim.batch}, {fitted.input.size_px} px")
try:
    convnext.recipe("imagenet", "tiny")
except convnext.ConvNeXtError as error:
    print(error)  # one line: what is wrong, and the nearest name
