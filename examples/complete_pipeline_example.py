"""The life of a model: fit, batches, segment names, retrain, rollback, another process.

python examples/complete_pipeline_example.py
"""

from tsclust_model import PipelineConfig, TimeSeriesClusteringPipeline, make_hospital

TARGET, RESOURCES = "length_of_stay_days", ["nursing_hours", "medication_cost"]


def main() -> None:
    hospital = make_hospital(3000, born=0.6)  # a new kind of patient appears
    features = hospital.drop(columns=[TARGET, *RESOURCES])
    past = slice(0, 1600)
    config = PipelineConfig(hdbscan_params={"min_cluster_size": 40, "min_samples": 5})
    pipeline = TimeSeriesClusteringPipeline(config, model_name="complete-example")
    pipeline.fit_initial(
        features[past],
        hospital[TARGET][past],
        {name: hospital[name][past] for name in RESOURCES},
        time="admission_time",
        id="patient_id",
    )
    pipeline.name_segment(0, "the first segment")

    for start in range(1600, 3000, 350):
        rows = slice(start, start + 350)
        outcomes = {name: hospital[name][rows] for name in RESOURCES}
        result = pipeline.process_batch(features[rows], hospital[TARGET][rows], outcomes)
        needs = {
            cluster: round(sums["nursing_hours"])
            for cluster, sums in result.resource_predictions.items()
        }
        print(f"noise {result.noise_ratio:.1%}, nursing hours by segment {needs}")

    retraining = pipeline.retrain("a new kind of patient was admitted")
    print(retraining.comparison.reason)
    print("segments:", pipeline.get_model_info()["clustering"]["segment_names"])
    print("lineage:", retraining.generation.info["lineage"])
    pipeline.close()

    # Another process, or the same one tomorrow, continues with the registered model.
    again = TimeSeriesClusteringPipeline.load("models:/complete-example@champion")
    print("serving version", again.current_model_version, again.current_health_status)
    if again.current_model_version != "1":  # a challenger was promoted, now or during the batches
        print("back to version", again.rollback("the planners want to look at it first"))


if __name__ == "__main__":
    main()
