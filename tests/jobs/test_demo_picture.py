"""The picture of the README is drawn from a finished run by one command."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from jobs import demo_picture, make_shards
from jobs.models import save_model, segmenter_card, untrained_segmenter
from pipeline.images import decode_image, decode_jpeg
from pipeline.shards import ShardSet
from tests.runs import here, tiny_run


def test_frames_stand_above_their_result_in_the_order_of_time(tmp_path, capsys):
    recipe = here(tiny_run(tmp_path / "run", stage_two=None))
    recipe = replace(recipe, world=replace(recipe.world, videos_train=2, videos_val=1))
    make_shards.main(recipe)
    shards = ShardSet(recipe.shards_of("val"))
    save_model(recipe.segmenter_folder, untrained_segmenter(recipe).state_dict(),
               segmenter_card(recipe, shards.classes, shards=shards.fingerprint))
    said = demo_picture.main(recipe)
    assert said["picture"] == str(recipe.run_folder / "demo.png")
    assert said["picture"] in capsys.readouterr().out
    picture = decode_image((recipe.run_folder / "demo.png").read_bytes())

    video = shards.videos[0]
    scale = -(-demo_picture.HEIGHT // video.height)
    height, width = scale * video.height, scale * video.width
    assert picture.shape == (2 * height + demo_picture.GAP, 4 * width + 3 * demo_picture.GAP, 3)
    chosen = np.linspace(0, len(video.frames) - 1, 4).round().astype(int)
    assert len(set(chosen)) == 4
    for column, frame in enumerate(chosen):
        ((jpeg, _),) = shards.read(video, frame, frame + 1)
        left = column * (width + demo_picture.GAP)
        np.testing.assert_array_equal(picture[:height:scale, left:left + width:scale], decode_jpeg(jpeg))
        below = picture[height + demo_picture.GAP::scale, left:left + width:scale]
        assert (below != decode_jpeg(jpeg)).any()
