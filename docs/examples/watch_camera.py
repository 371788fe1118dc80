"""Watch a camera and print when an object comes and goes.

python docs/examples/watch_camera.py runs/pets-001 0
python docs/examples/watch_camera.py runs/pets-001 rtsp://door/cam --class-name dog --min-score 0.6
"""

import argparse

import tcam


def main() -> None:
    """Read the arguments and watch until the source ends, or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder, or a file of tcam export")
    parser.add_argument("source", help="0 (a camera), an rtsp:// or http:// address, or a video file")
    parser.add_argument("--class-name", help="look for this tag; default: the most probable one")
    parser.add_argument("--min-score", type=float, default=0.5, help="class score from which an object is there")
    arguments = parser.parse_args()

    localizer = tcam.StreamLocalizer.of_run(arguments.run, class_name=arguments.class_name)
    seen = ""
    for frame in tcam.predict(arguments.source, run=localizer, stream=True):
        there = frame.box is not None and frame.class_score >= arguments.min_score
        now = frame.class_name if there else "nothing"
        if now != seen:
            print(f"{frame.time_s:7.2f} s  {now}  {frame.box if there else ''}", flush=True)
            seen = now


if __name__ == "__main__":
    main()
