use aws_sdk_applicationautoscaling::primitives::DateTime;
use aws_sdk_applicationautoscaling::types::{
    AdjustmentType, ScalableTargetAction, StepScalingPolicyConfiguration,
    TargetTrackingScalingPolicyConfiguration as Tracking,
};

use super::*;

const NAME: &str = "shop-nats";
const RESOURCE: &str = "service/cluster/shop-nats";

fn target(min: i32, max: i32) -> ScalableTarget {
    let target = ScalableTarget::builder().service_namespace(ServiceNamespace::Ecs).resource_id(RESOURCE);
    let target = target.scalable_dimension(ScalableDimension::EcsServiceDesiredCount).role_arn("arn:role");
    target.min_capacity(min).max_capacity(max).creation_time(DateTime::from_secs(0)).build().unwrap()
}

fn tracks(name: &str, metric: MetricType, value: f64) -> ScalingPolicy {
    let metric = PredefinedMetricSpecification::builder().predefined_metric_type(metric).build().unwrap();
    let tracking = Tracking::builder().target_value(value).predefined_metric_specification(metric);
    policy(name)
        .target_tracking_scaling_policy_configuration(tracking.scale_in_cooldown(600).build().unwrap())
        .build()
        .unwrap()
}

fn steps(name: &str) -> ScalingPolicy {
    let steps = StepScalingPolicyConfiguration::builder().adjustment_type(AdjustmentType::ChangeInCapacity).build();
    policy(name).policy_type(PolicyType::StepScaling).step_scaling_policy_configuration(steps).build().unwrap()
}

fn policy(name: &str) -> aws_sdk_applicationautoscaling::types::builders::ScalingPolicyBuilder {
    ScalingPolicy::builder()
        .policy_arn("arn")
        .policy_name(name)
        .service_namespace(ServiceNamespace::Ecs)
        .resource_id(RESOURCE)
        .scalable_dimension(ScalableDimension::EcsServiceDesiredCount)
        .policy_type(PolicyType::TargetTrackingScaling)
        .creation_time(DateTime::from_secs(0))
}

fn nightly() -> ScheduledAction {
    let action = ScalableTargetAction::builder().min_capacity(6).max_capacity(20).build();
    ScheduledAction::builder()
        .scheduled_action_name("nightly")
        .scheduled_action_arn("arn")
        .service_namespace(ServiceNamespace::Ecs)
        .schedule("cron(0 20 * * ? *)")
        .resource_id(RESOURCE)
        .scalable_target_action(action)
        .creation_time(DateTime::from_secs(0))
        .build()
        .unwrap()
}

#[test]
fn a_target_value_keeps_its_decimals() {
    let cpu = tracks("cpu-shop-nats", MetricType::EcsServiceAverageCpuUtilization, 72.5);
    let found = Found::new(NAME, &target(2, 4), &[&cpu], &[]);
    assert_eq!(found.autoscaling.cpu_percent.to_string(), "72.5");
    assert_eq!(json!(found.autoscaling), json!({ "min": 2, "max": 4, "cpu_percent": 72.5, "memory_percent": 0 }));
}

#[test]
fn policies_and_actions_of_others_are_named() {
    let cpu = tracks("cpu-shop-nats", MetricType::EcsServiceAverageCpuUtilization, 70.0);
    let requests = tracks("by-requests", MetricType::AlbRequestCountPerTarget, 500.0);
    let found = Found::new(NAME, &target(6, 20), &[&requests, &steps("steps"), &cpu], &[&nightly()]);
    let expected = json!({
        "scaling policy `by-requests`": "TargetTrackingScaling of ALBRequestCountPerTarget at 500",
        "scaling policy `steps`": "StepScaling",
        "scheduled action `nightly`": "cron(0 20 * * ? *): min 6, max 20",
    });
    assert_eq!(json!(found.others), expected);
    assert_eq!(found.scheduled, Some(Scaling { min: 6, max: 20 }));
    assert_eq!(json!(found.autoscaling.cpu_percent), 70);
}

#[test]
fn a_policy_of_others_on_the_same_metric_is_taken_over_with_what_it_says_besides() {
    let theirs = tracks("their-cpu", MetricType::EcsServiceAverageCpuUtilization, 50.0);
    let found = Found::new(NAME, &target(2, 4), &[&theirs], &[]);
    assert_eq!((json!(found.autoscaling.cpu_percent), found.others.len()), (json!(50), 0));
    let metric = MetricType::EcsServiceAverageCpuUtilization;
    let tracking = tracking(own(NAME, "cpu", &metric, &[&theirs]), metric, Percent::from(70.0)).unwrap();
    assert_eq!((tracking.target_value(), tracking.scale_in_cooldown()), (70.0, Some(600)));
}
