"""The examples of the repository, so that an installed package has them, too: experiments (.yml), scripts, a page."""
