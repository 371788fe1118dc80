from pipelines.run.console import console, item_bar, print_text_table
from pipelines.run.progress import Progress


def test_people_read_stderr_and_names_that_look_like_markup_stay(capsys):
    console.print("[bold]a[/bold].mp4")
    print_text_table("Title", ("video", "frames"), [("[red]x", "12"), ("y", "3")])
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line.split() for line in err.splitlines() if line.strip()]
    assert lines[0] == ["[bold]a[/bold].mp4"]
    assert ["Title"] in lines
    assert ["[red]x", "12"] in lines


def test_no_bar_is_drawn_into_a_file(capsys):
    with item_bar("prepare") as update:
        update(Progress(1, 0, 2, 1.0))
    assert capsys.readouterr() == ("", "")
