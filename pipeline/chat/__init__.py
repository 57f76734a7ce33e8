"""Questions about clips to an audio language model behind an OpenAI-compatible chat endpoint.

    config      which endpoint, at what price and pace, under which terms
    request     a prompt as the body of a request; the key under which its answer is kept
    responses   what the corpus has: one file per question, written before it is used
    spending    what was spent, what is promised to requests on their way, and the ceiling
    api_key     the key: from the environment only, and out of every text
    failures    what an answer other than a good one means: try again, give up, or stop
    completion  a chat completion as endpoints send it, and what it cost
    desk        one process: pace, retries, books, the request itself
    session     what Ray Data's HTTP processor takes for a client session
    asking      the run: what is known already, what goes through Ray, in which blocks

A model's answer is somebody's product. The terms of some providers forbid training models that
compete with theirs on it, so nothing here is on by default, a user must declare the terms under
which the answers may be used, and every answer keeps that declaration.
"""
