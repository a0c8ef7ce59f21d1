"""Write the tables of docs/reproduce.md anew."""

from tests.jobs.reproducing.page import PAGE, page

if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
