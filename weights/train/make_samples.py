"""Draw samples/scene.png and samples/clip.gif with the rasteriser of the training pictures."""
import os

from PIL import Image

from scenes import Shape, render

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "samples")
SCALE = 4  # 256 x 256 pixels: the planner brings them back to 64 x 64


def main():
    os.makedirs(OUT, exist_ok=True)
    scene = [Shape("circle", "red", 20, 24, 10, 10), Shape("triangle", "blue", 45, 43, 11, 10)]
    Image.fromarray(render(scene, (236, 244, 240), SCALE)).save(os.path.join(OUT, "scene.png"), optimize=True)
    frames = [Image.fromarray(render([Shape("circle", "green", 11 + 8 * i, 34, 8, 8)], (244, 238, 248), SCALE)) for i in range(6)]
    frames[0].save(os.path.join(OUT, "clip.gif"), save_all=True, append_images=frames[1:], duration=500, loop=0, optimize=False)


if __name__ == "__main__":
    main()
