"""Print the box of every frame of a video.

python docs/examples/predict_video.py runs/pets-001 holiday.mp4
"""

import argparse

import tcam


def main() -> None:
    """Read the arguments and predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or a file of tcam export")
    parser.add_argument("video", help="video file, or a folder of frames")
    arguments = parser.parse_args()

    for frame in tcam.predict(arguments.video, run=arguments.run, stream=True):
        if frame.box is None:
            print(f"{frame.time_s:7.2f} s  nothing")
            continue
        edges = ", ".join(f"{edge:.0f}" for edge in frame.box)
        print(f"{frame.time_s:7.2f} s  {frame.class_name} ({frame.class_score:.2f})  {edges}")


if __name__ == "__main__":
    main()
