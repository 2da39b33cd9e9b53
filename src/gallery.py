"""List a gallery, rename or remove speakers: python -m src.gallery GALLERY

Prints a line for each speaker: name, number of recordings, seconds. What is removed is overwritten in the file. Exit
status: 0 done, 1 where a name is not enrolled or the gallery cannot be used. Needs numpy and pydantic.
"""

if __name__ == "__main__":
    from src.common.command import command

    command("src.gallery")

import json
from pathlib import Path

from pydantic import Field

from src.common.schema import Section
from src.runtime import gallery as galleries
from src.runtime.errors import count, printable


class Options(Section):
    gallery: Path = Field(description="a file of src.enrol")
    rename: list[str] = Field([], min_length=2, max_length=2, description="the name of a speaker, and the new one")
    remove: list[str] = Field([], min_length=1, description="names of speakers, who are then not enrolled any more")
    json_: bool = Field(False, description="print JSON, a line for each speaker")


def main(gallery, rename=(), remove=(), json_=False):
    with galleries.opened(gallery) as opened:
        if rename:
            old, new = map(galleries.speaker_name, rename)
            opened.rename(old, new)
        if remove:
            opened.remove(map(galleries.speaker_name, remove))
        if rename or remove:
            print(f"{printable(gallery)}: {count(len(opened), 'speaker')}")
            return
        for speaker in opened.speakers():
            if json_:
                print(json.dumps(vars(speaker) | {"seconds": round(speaker.seconds, 3)}))
            else:
                recordings = count(speaker.recordings, "recording")
                print(f"{printable(speaker.name)}\t{recordings}\t{speaker.seconds:.1f} s")
